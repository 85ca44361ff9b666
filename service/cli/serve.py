"""``tallystick serve`` and ``tallystick migrate``."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import click
import structlog

from ledger.errors import ConfigError
from service.cli.output import echo_json, json_option, say, with_exit_codes
from service.failures import LibraryHandler
from service.settings import Installation, Settings, load_installation

__all__ = ["READY", "configure_logging", "migrate", "run_service", "serve"]

READY = b"ready"
"""What a worker says to its parent once it answers requests."""

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
@click.option("--tls-certificate", default=None, metavar="FILE", help="Instead of TALLYSTICK_TLS_CERTIFICATE.")
@click.option("--tls-key", default=None, metavar="URI", help="file:PATH or env:NAME, instead of TALLYSTICK_TLS_KEY.")
@click.option("--tls-client-ca", default=None, metavar="FILE", help="Instead of TALLYSTICK_TLS_CLIENT_CA.")
@click.option("--workers", type=click.IntRange(1, 64), default=None, help="Processes, instead of TALLYSTICK_WORKERS.")
@with_exit_codes
def serve(
    place: str | None,
    *,
    with_migration: bool,
    workers: int | None,
    tls_certificate: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
) -> None:
    """Run the service. Its settings are environment variables, TALLYSTICK_…; see docs/operations.md.

    It logs JSON, one object a line, to standard error.
    """
    from service.cli.serving import listen
    from service.cli.supervising import supervise
    from service.tls import listener_settings

    configure_logging()
    tls = {"tls_certificate": tls_certificate, "tls_key": tls_key, "tls_client_ca": tls_client_ca}
    installation = load_installation(listen=place, workers=workers, **tls)
    settings = installation.settings
    listener_settings(settings)
    if settings.workers == 1:
        run_service(installation, lambda: listen(settings.host, settings.port), migrate=with_migration)
        return
    _tell_warnings(installation)
    if with_migration:
        _migrate(settings)
    with listen(settings.host, settings.port) as listening:
        # The workers read what was given here from their environment, as whatever else they are told.
        changes = {"TALLYSTICK_LISTEN": settings.listen, "TALLYSTICK_WORKERS": str(settings.workers)}
        changes |= {f"TALLYSTICK_{name.upper()}": value for name, value in tls.items() if value is not None}
        status = asyncio.run(supervise(listening, settings.workers, changes))
    sys.exit(status)


def run_service(
    installation: Installation,
    open_socket: Callable[[], socket.socket],
    *,
    migrate: bool = False,
    worker: int | None = None,
    parent: socket.socket | None = None,
) -> None:
    """Serve an installation in this process, until it is told to stop.

    Args:
        installation: What is served.
        open_socket: Returns the listening socket, once the parts of the service are there.
        migrate: Bring a PostgreSQL schema up to date first.
        worker: Number of this process among several, from 0; None if it is the only one.
        parent: Told that requests are answered, and watched: this process ends with it.

    Raises:
        TallystickError: The service could not be started.
    """
    import uvicorn

    from service.app import create_app
    from service.cli.serving import STOP_SECONDS, listen, serve_until_stopped
    from service.hosting import open_hosting
    from service.tls import open_tls

    log = structlog.get_logger()
    settings = installation.settings
    hosting = open_hosting(installation, migrate=migrate)
    tls = open_tls(settings, hosting.metrics)
    hosting.certificates = None if tls is None else tls.certificates
    if worker is None:
        _tell_warnings(installation)
    if not worker:
        _keep_engines(settings)
    listening = open_socket()
    host, port = listening.getsockname()[:2]
    also = []
    if worker is not None and settings.worker_listen:
        also.append(listen(*settings.worker_place(worker)))

    def ready() -> None:
        # What was loaded stays as long as the process: no collection of garbage need look at it again.
        gc.collect()
        gc.freeze()
        log.info("serving", **_names(installation), listen=f"{host}:{port}", host=host, port=port, tls=tls is not None)
        if parent is not None:
            parent.send(READY)

    async def start() -> None:
        await hosting.start()
        if tls is not None:
            tls.certificates.start()

    async def stop() -> None:
        if tls is not None:
            await tls.certificates.stop()
        await hosting.stop()

    config = uvicorn.Config(
        create_app(hosting),
        http="h11" if tls is None else tls.protocol,
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
            start=start,
            stop=stop,
            ready=ready,
            ending=hosting.release,
            also=also,
            parent=parent,
        )
    )


def _keep_engines(settings: Settings) -> None:
    """Put the installed engines into the cellar: after the next upgrade, their decisions still replay exactly."""
    from policies.cellar_filling import keep_installed
    from service.wiring.engines import ENGINE_KINDS

    for kind in ENGINE_KINDS:
        try:
            kept = keep_installed(settings.effective_engine_cellar, kind)
        except (ConfigError, OSError) as error:
            structlog.get_logger().warning("engine_not_kept", engine=kind.name, error=type(error).__name__)
        else:
            if kept is not None:
                structlog.get_logger().info("engine_kept", engine=kind.name, version=kept.version)


def _tell_warnings(installation: Installation) -> None:
    log = structlog.get_logger()
    for one in installation.logs:
        for warning in _warnings(one):
            log.warning("weaker_than_production", log_id=one.log_id, detail=warning)


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
    settings = load_installation().settings
    if not settings.database_url:
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    _migrate(settings)
    if as_json:
        echo_json({"migrated": True})
    else:
        say("the schema is up to date")


def _migrate(settings: Settings) -> None:
    from ledger.database import open_engine
    from migrations.schema import upgrade

    engine = open_engine(settings.effective_database_url)
    upgrade(engine)
    engine.dispose()
