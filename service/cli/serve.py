"""``tallystick serve`` and ``tallystick migrate``."""

from __future__ import annotations

import asyncio
import logging
import sys

import click
import structlog

from service.cli.output import say, with_exit_codes
from service.failures import LibraryHandler
from service.settings import load_settings

__all__ = ["configure_logging", "migrate", "serve"]


def configure_logging(*, level: int = logging.INFO) -> None:
    """Log one JSON object a line to standard error: constant event names plus fields, never arguments or payloads.

    What libraries log from warnings on goes the same way, without the messages of errors (`service.failures`).
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[LibraryHandler()], force=True)


@click.command()
@click.option("--listen", "place", default=None, metavar="HOST:PORT", help="Instead of TALLYSTICK_LISTEN.")
@click.option("--migrate", "with_migration", is_flag=True, help="Bring a PostgreSQL schema up to date first.")
@with_exit_codes
def serve(place: str | None, *, with_migration: bool) -> None:
    """Run the service. Its settings are environment variables, TALLYSTICK_…; see docs/operations.md."""
    import uvicorn

    from service.app import create_app
    from service.cli.serving import STOP_SECONDS, listen, serve_until_stopped
    from service.wiring import build_services

    configure_logging()
    log = structlog.get_logger()
    settings = load_settings(listen=place)
    for warning in settings.warnings():
        log.warning("weaker_than_production", detail=warning)
    services = build_services(settings, migrate=with_migration)
    listening = listen(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        create_app(services),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        # A proxy's word on addresses counts only if somebody says which proxy.
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    asyncio.run(
        serve_until_stopped(
            config,
            listening,
            start=services.start,
            stop=services.stop,
            ready=lambda: log.info(
                "serving", origin=settings.origin, log_id=settings.log_id, listen=f"{host}:{port}", host=host, port=port
            ),
        )
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
