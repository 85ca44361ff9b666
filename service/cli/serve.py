"""``tallystick serve`` and ``tallystick migrate``."""

from __future__ import annotations

import logging
import sys

import click
import structlog

from service.cli.output import say, with_exit_codes
from service.settings import load_settings

__all__ = ["configure_logging", "migrate", "serve"]


def configure_logging(*, level: int = logging.INFO) -> None:
    """Log one JSON object a line to standard error: constant event names plus fields, never arguments or payloads."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


@click.command()
@click.option("--listen", default=None, metavar="HOST:PORT", help="Instead of TALLYSTICK_LISTEN.")
@click.option("--migrate", "with_migration", is_flag=True, help="Bring a PostgreSQL schema up to date first.")
@with_exit_codes
def serve(listen: str | None, *, with_migration: bool) -> None:
    """Run the service. Its settings are environment variables, TALLYSTICK_…; see docs/operations.md."""
    import uvicorn

    from service.app import create_app
    from service.wiring import build_services

    configure_logging()
    log = structlog.get_logger()
    settings = load_settings(listen=listen)
    for warning in settings.warnings():
        log.warning("weaker_than_production", detail=warning)
    services = build_services(settings, migrate=with_migration)
    log.info("serving", origin=settings.origin, log_id=settings.log_id, listen=settings.listen)
    uvicorn.run(
        create_app(services),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        # A proxy's word on addresses counts only if somebody says which proxy.
        proxy_headers=False,
    )


@click.command()
@with_exit_codes
def migrate() -> None:
    """Bring the database to the newest schema."""
    from ledger.database import open_engine
    from migrations.schema import upgrade

    engine = open_engine(load_settings().effective_database_url)
    upgrade(engine)
    engine.dispose()
    say("the schema is up to date")
