"""``tallystick serve`` and ``tallystick migrate``."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress

import click
import structlog

from service.cli.output import echo_json, json_option, say, with_exit_codes
from service.failures import LibraryHandler
from service.settings import Installation, Settings, load_installation

__all__ = ["configure_logging", "migrate", "serve"]

_UNPROTECTED = (
    "Key files have no passphrase: whoever reads them signs as this log. Protect them, or the disk they are on."
)


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
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[LibraryHandler()], force=True)


@click.command(short_help="Run the service.")
@click.option("--listen", "place", default=None, metavar="HOST:PORT", help="Instead of TALLYSTICK_LISTEN.")
@click.option("--migrate", "with_migration", is_flag=True, help="Bring a PostgreSQL schema up to date first.")
@with_exit_codes
def serve(place: str | None, *, with_migration: bool) -> None:
    """Run the service. Its settings are environment variables, TALLYSTICK_…; see docs/operations.md.

    It logs JSON, one object a line, to standard error.
    """
    import uvicorn

    from service.app import create_app
    from service.cli.serving import STOP_SECONDS, listen, serve_until_stopped
    from service.hosting import open_hosting

    configure_logging()
    log = structlog.get_logger()
    installation = load_installation(listen=place)
    settings = installation.settings
    hosting = open_hosting(installation, migrate=with_migration)
    for one in installation.logs:
        for warning in _warnings(one):
            log.warning("weaker_than_production", log_id=one.log_id, detail=warning)
    listening = listen(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        create_app(hosting),
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
            start=hosting.start,
            stop=hosting.stop,
            ready=lambda: log.info("serving", **_names(installation), listen=f"{host}:{port}", host=host, port=port),
        )
    )


def _warnings(settings: Settings) -> list[str]:
    from service.keyset import unprotected_keys

    found = settings.warnings()
    # Keys that cannot be read are told of when their log opens.
    with suppress(OSError):
        if unprotected_keys(settings.keys_dir):
            found.append(_UNPROTECTED)
    return found


def _names(installation: Installation) -> dict[str, object]:
    if len(installation.logs) > 1:
        return {"logs": [log.log_id for log in installation.logs]}
    return {"origin": installation.one().origin, "log_id": installation.one().log_id}


@click.command()
@json_option
@with_exit_codes
def migrate(*, as_json: bool) -> None:
    """Bring the database to the newest schema."""
    from ledger.database import open_engine
    from migrations.schema import upgrade

    settings = load_installation().settings
    if not settings.database_url:
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    engine = open_engine(settings.effective_database_url)
    upgrade(engine)
    engine.dispose()
    if as_json:
        echo_json({"migrated": True})
    else:
        say("the schema is up to date")
