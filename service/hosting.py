"""The logs that one process serves: opened, found by their id, closed.

Each log has its own `Services`, from its own settings and keys; `build_services` makes one and knows of no
other. Shared are database, policy evaluator, clock and threads. A log that does not open is told loudly and tried
again; the others go on, for one tenant's bucket or key file is no reason to refuse all tenants.

Which log a request is for is decided in `service.api.common` (by token, by path) and `service.web.guard` (by cookie).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Engine

from enforcement.config_files import read_secret
from enforcement.tls_watch import CertificateWatch
from ledger.clock import Clock
from ledger.errors import ConfigError, NotFoundError, StateError, TallystickError
from ledger.tasks import end
from service.auth import TokenStore
from service.failures import describe
from service.fairness import RESERVED, THREADS, FairExecutor, current_log
from service.health import Check, Metrics, exposition
from service.keyset import KeySet
from service.separation import require_own_keys
from service.settings import Installation, Settings
from service.wiring.assembly import build_services
from service.wiring.services import Services, open_shared

__all__ = ["Hosting", "LogState", "alone", "open_hosting"]

_log = structlog.get_logger()

_RETRY_SECONDS: Final = 30.0
_MIN_OPERATOR_TOKEN_CHARS: Final = 32


@dataclass(slots=True)
class _Place:
    """Where one log of the installation stands.

    Attributes:
        settings: The log's.
        services: Its parts while it is open.
        failure: Why it is not, for the operator alone.
    """

    settings: Settings
    services: Services | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """How one log is, for those who may know of it.

    Attributes:
        log_id: Which.
        ready: It can take and prove records.
        failure: Why it is not open, or None.
        checks: Its parts, if it is open.
    """

    log_id: str
    ready: bool
    failure: str | None
    checks: Sequence[Check]


class _SharedKeyError(ConfigError):
    """Two logs hold one key: no log of the installation can be told from the other by its signatures."""


class Hosting:
    """Every log of one process. Methods belong to one event loop; made by `alone` or `open_hosting`.

    Attributes:
        settings: Those of the process.
        only: The parts of the only log, where one has the process to itself. None where requests have to say which
            log they are for; names of logs are then nobody's business but their own.
        clock: The shared one.
        database: The shared one.
        tokens: The tokens of all logs.
        metrics: Of requests that are for no log, as far as is known.
        certificates: Looks after the certificate that clients are shown; None if somebody else ends TLS.
    """

    def __init__(
        self,
        settings: Settings,
        logs: Sequence[Settings],
        build: Callable[[Settings], Services],
        *,
        clock: Clock,
        database: Engine,
        tokens: TokenStore,
        only: Services | None = None,
        close: Callable[[], None] = lambda: None,
        operator_token: str | None = None,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """Take the logs of an installation; nothing is opened yet.

        Args:
            settings: Those of the process.
            logs: Those of each log.
            build: Makes a log's parts.
            clock: The shared one.
            database: The shared one.
            tokens: The tokens of all logs.
            only: The parts of the only log, where one has the process to itself.
            close: Lets go of what the logs share.
            operator_token: Opens health and metrics of all logs.
            retry_seconds: When a log that did not open is tried again.
        """
        self.settings = settings
        self.only = only
        self.clock = clock
        self.database = database
        self.tokens = tokens
        self.metrics = Metrics() if only is None else only.metrics
        self.certificates: CertificateWatch | None = None
        self._places = {log.log_id: _Place(log, only) for log in logs}
        self._key_sets: dict[str, KeySet] = {}
        self._build = build
        self._close = close
        self._operator = None if operator_token is None else hashlib.sha256(operator_token.encode()).digest()
        self._retry_seconds = retry_seconds
        self._retrying: asyncio.Task[None] | None = None

    # --- finding ---------------------------------------------------------------------------------------------------

    def find(self, log_id: str) -> Services:
        """Return the parts of a log.

        Raises:
            NotFoundError: It is none of this process.
            StateError: It is, and is not open.
        """
        place = self._places.get(log_id)
        if place is None:
            raise NotFoundError("this service has no such log")
        if place.services is None:
            raise StateError("the log is not open at the moment")
        return place.services

    def is_open(self, log_id: str) -> bool:
        """Return whether a log is one of ours and open."""
        place = self._places.get(log_id)
        return place is not None and place.services is not None

    @property
    def takes_access_requests(self) -> bool:
        """Whether people of any log can be asked to agree to what was denied."""
        return any(place.settings.access_request_seconds for place in self._places.values())

    @property
    def failures(self) -> Mapping[str, str]:
        """Why logs are not open, by id."""
        return {log_id: place.failure for log_id, place in self._places.items() if place.failure is not None}

    # --- starting and stopping -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every log.

        Raises:
            ConfigError: Two logs share a key.
            TallystickError: No log opened; the first one's reason.
        """
        loop = asyncio.get_running_loop()
        if self.only is not None:
            loop.set_default_executor(FairExecutor(share=THREADS, reserved=RESERVED))
            current_log.set(self.only.identity.log_id)
            await self.only.start()
            return
        loop.set_default_executor(FairExecutor(reserved=RESERVED))
        try:
            await self._start_several()
        except BaseException:
            await self.stop()
            raise

    async def _start_several(self) -> None:
        errors = await asyncio.gather(*(self._open(place) for place in self._places.values()))
        shared_key = next((error for error in errors if isinstance(error, _SharedKeyError)), None)
        if shared_key is not None:
            raise ConfigError(str(shared_key)) from shared_key
        first = next((error for error in errors if error is not None), None)
        if first is not None and None not in errors:
            raise first
        self._retrying = asyncio.create_task(self._open_again(), name="open-again")

    async def _open(self, place: _Place) -> Exception | None:
        """Open a log; what keeps it closed is told, and returned."""
        log_id = place.settings.log_id
        current_log.set(log_id)  # all tasks of the log's parts inherit it
        try:
            services = await asyncio.to_thread(self._build, place.settings)
            self._require_own_keys(services)
            await services.start()
        except TallystickError as error:
            _log.error("log_not_open", log_id=log_id, reason=str(error))
            place.failure = str(error)
            return error
        except Exception as error:  # noqa: BLE001  # whatever it was, the other tenants' logs go on
            _log.error("log_not_open", log_id=log_id, **describe(error))
            place.failure = "an unexpected error; see the service's log"
            return error
        place.services, place.failure = services, None
        _log.info("log_open", log_id=log_id, origin=place.settings.origin)
        return None

    def _require_own_keys(self, services: Services) -> None:
        mine = services.identity.log_id
        others = [(log_id, keys) for log_id, keys in self._key_sets.items() if log_id != mine]
        try:
            require_own_keys(mine, services.keys, others)
        except ConfigError as error:
            raise _SharedKeyError(str(error)) from error
        self._key_sets[mine] = services.keys

    async def _open_again(self) -> None:
        while True:
            await asyncio.sleep(self._retry_seconds)
            await asyncio.gather(
                *(self._open(place) for place in self._places.values() if place.services is None),
            )

    def release(self) -> None:
        """Let those requests go that only wait for news: the process is about to stop."""
        for place in self._places.values():
            if place.services is not None:
                place.services.bundle_watch.release()
                place.services.containments.watch.release()
                place.services.approvals.watch.release()

    async def stop(self) -> None:
        """Close every log in order, and let go of what they share."""
        await end(self._retrying)
        if self.only is not None:
            await self.only.stop()
            return
        open_logs = [place.services for place in self._places.values() if place.services is not None]
        ended = await asyncio.gather(*(services.stop() for services in open_logs), return_exceptions=True)
        for services, error in zip(open_logs, ended, strict=True):
            if isinstance(error, BaseException):
                _log.error("log_not_closed", log_id=services.identity.log_id, **describe(error))
        await asyncio.to_thread(self._close)

    # --- health ----------------------------------------------------------------------------------------------------

    def is_operator(self, token: str) -> bool:
        """Return whether a token is the operator's, which opens health and metrics of all logs and nothing else."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        return self._operator is not None and hmac.compare_digest(digest, self._operator)

    async def look(self) -> list[LogState]:
        """Look at every log, in the order of the installation."""
        return await asyncio.gather(*(self._look(log_id, place) for log_id, place in self._places.items()))

    async def _look(self, log_id: str, place: _Place) -> LogState:
        if place.services is None:
            return LogState(log_id=log_id, ready=False, failure=place.failure or "not open yet", checks=())
        checks = await place.services.readiness.look(place.services)
        ready = all(check.ok for check in checks if check.vital)
        return LogState(log_id=log_id, ready=ready, failure=None, checks=checks)

    @property
    def asks_providers(self) -> bool:
        """Whether people log in by an OpenID provider, to any of the logs."""
        return any(place.settings.oidc_issuer for place in self._places.values())

    def render_metrics(self) -> bytes:
        """Return the exposition text of all logs; for any thread."""
        parts = [("", self.metrics)]
        for log_id, place in self._places.items():
            if place.services is not None:
                place.services.metrics.refresh(place.services)
                parts.append((log_id, place.services.metrics))
        return exposition(parts, logs_open={log_id: self.is_open(log_id) for log_id in self._places})


def alone(services: Services) -> Hosting:
    """Return the hosting of one log that has the process to itself; start and stop are the log's own."""
    return Hosting(
        services.settings,
        [services.settings],
        lambda _settings: services,
        clock=services.clock,
        database=services.database,
        tokens=services.tokens,
        only=services,
    )


def open_hosting(
    installation: Installation,
    *,
    clock: Clock | None = None,
    allow_simulated: bool = False,
    migrate: bool = False,
    retry_seconds: float = _RETRY_SECONDS,
) -> Hosting:
    """Return the hosting of an installation; its logs open when it starts.

    Args:
        installation: The process's settings and those of its logs.
        clock: The system's clock if None.
        allow_simulated: Accept demonstration keys and simulated clocks; everything then says SIMULATED.
        migrate: Bring a PostgreSQL schema up to date first.
        retry_seconds: When a log that did not open is tried again.

    Raises:
        ConfigError: A setting, the operator's token, or with one log any part of it, cannot be used.
        StorageError: The database failed.
    """
    settings = installation.settings
    if len(installation.logs) == 1:
        only = installation.logs[0]
        return alone(build_services(only, clock=clock, allow_simulated=allow_simulated, migrate=migrate))
    operator_token = _operator_token(settings)
    logs = len(installation.logs)
    shared = open_shared(settings, clock=clock, migrate=migrate, logs=logs)

    def build(log: Settings) -> Services:
        return build_services(log, allow_simulated=allow_simulated, shared=shared)

    return Hosting(
        settings,
        installation.logs,
        build,
        clock=shared.clock,
        database=shared.database,
        tokens=TokenStore(shared.database, shared.clock),
        close=shared.close,
        operator_token=operator_token,
        retry_seconds=retry_seconds,
    )


def _operator_token(settings: Settings) -> str | None:
    if not settings.operator_token:
        return None
    token = read_secret(settings.operator_token)
    if len(token) < _MIN_OPERATOR_TOKEN_CHARS:
        raise ConfigError(
            f"TALLYSTICK_OPERATOR_TOKEN: the secret has fewer than {_MIN_OPERATOR_TOKEN_CHARS} characters"
        )
    return token
