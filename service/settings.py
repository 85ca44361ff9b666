"""Settings, parsed once from the environment (prefix ``TALLYSTICK_``). The defaults are those of production.

Whatever is weaker than production is said loudly when the service starts (`Settings.warnings`). Secrets are named by
URI, ``file:`` or ``env:``, and never stand in a setting.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ledger.errors import ConfigError
from service.logs_file import LogEntry, read_logs_file
from service.oidc.settings import require_own_people
from service.persons import MAX_PERSON_SECONDS, PERSON_SECONDS
from service.separation import require_apart

__all__ = ["MAX_PORT", "PROCESS_WIDE", "Installation", "Settings", "load_installation", "load_settings", "passphrase"]

_PREFIX: Final = "TALLYSTICK_"
MAX_PORT: Final = 65_535
_CREDENTIALS: Final = r"^((profile|file|env):.+)?$"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

PROCESS_WIDE: Final = frozenset(
    {
        "database_url",
        "engine_batch_workers",
        "engine_cellar",
        "engine_memory_bytes",
        "engine_seconds",
        "engine_workers",
        "external_url",
        "insecure_cookies",
        "listen",
        "logs",
        "max_body_seconds",
        "opa_seconds",
        "opa_token",
        "opa_url",
        "operator_token",
        "session_seconds",
        "tls_certificate",
        "tls_client_ca",
        "tls_client_certificates",
        "tls_client_names",
        "tls_groups",
        "tls_key",
        "tls_minimum",
        "worker_listen",
        "workers",
    }
)
"""Settings of the process, which no entry of a logs file can have for its log alone."""


class Settings(BaseSettings):
    """The settings of one service.

    Attributes:
        data_dir: Log directory, packs, and by default database and anchor.
        keys_dir: Key files as `tallystick keys init` makes them, and subject keys; not in any backup of the database.
        database_url: SQLAlchemy URL; SQLite in the data directory by default.
        anchor: ``directory:PATH``, or ``s3://BUCKET/PREFIX``.
        anchor_retention_days: For S3: how long each checkpoint is locked; no default, locking needs a decision.
        anchor_endpoint: For S3: another endpoint than AWS.
        anchor_credentials: For S3: ``profile:NAME``, ``file:PATH`` or ``env:PREFIX``; what boto3 finds by default.
        anchor_accept: For S3: weaknesses of the bucket that are accepted, by name, separated by commas.
        tiles: ``directory:PATH``, or ``s3://BUCKET/PREFIX``.
        tiles_retention_days: For S3: how long each full tile and bundle is locked; 0 for no lock, no default.
        tiles_endpoint: For S3: another endpoint than AWS.
        tiles_credentials: For S3: as for the anchor, and not the same.
        retention: File with the retention policy; without it everything is kept for ever.
        expiry_interval_seconds: How often payloads are looked for that are past their time.
        witness_policy: C2SP tlog-policy file with the witnesses that are asked, and the quorum; none by default.
        witness_mode: Without the quorum, ``open`` shows a checkpoint all the same, ``closed`` shows nothing new.
        witness_timeout_seconds: Longest wait for one witness.
        tsa_url: RFC 3161 time-stamping authority; none by default.
        webhook_key: URI of the key that signs webhooks; without one there are none.
        tsa_certificates: PEM file of its root certificates.
        tsa_policy: Policy that its tokens must be made under, dotted; any by default.
        tsa_interval_seconds: At most one token in this time.
        log_id: The log that this service writes.
        tenant: Whose it is.
        origin: The log's name on its checkpoints.
        environment: Name of the deployment, in every record.
        service_id: The service's own enforcer id.
        listen: ``HOST:PORT``.
        tls_certificate: File with the certificate that is shown there, PEM; without it, answers are in the clear.
        tls_key: Its key, ``file:PATH`` or ``env:NAME``.
        tls_client_ca: File with the authorities that issue clients' certificates, PEM.
        tls_client_certificates: ``require``, ``optional`` or ``none``; by default ``require`` with ``tls_client_ca``.
        tls_client_names: Names that a client's certificate must have one of, such as ``URI:spiffe://acme/*``, with
            commas between them; any by default.
        tls_groups: ``strict`` refuses clients without post-quantum key agreement.
        tls_minimum: Oldest version of TLS, ``1.3`` or ``1.2``.
        workers: Processes that answer there; more than one needs PostgreSQL.
        worker_listen: ``HOST:PORT`` at which the first of several workers answers alone; the others at the next ports.
        external_url: How browsers reach the service.
        bundle_review: ``four_eyes``: a bundle becomes active once somebody else than its author has approved it;
            ``solo``: also without, and the record says so.
        bundle_trust: File with the public keys that must have signed a bundle before it becomes active.
        access_request_seconds: How long others' enforcement points may request that people agree to what was denied,
            and people may agree; 0: they cannot.
        access_request_approvers: How many different people must agree to such a request.
        public_log: Serve checkpoint and tiles without a token; entry bundles never.
        checkpoint_interval_seconds: At most one checkpoint in this time.
        audit_interval_seconds: From one audit in the background to the next; 0 for none.
        audit_full_interval_seconds: From one that reads everything to the next.
        heartbeat_interval_seconds: The service's own heartbeat.
        max_request_bytes: Largest request body.
        max_body_seconds: Longest time that a request's body may take to arrive.
        max_batch_records: Most records in one request.
        max_waiting_records: Most records that wait to be sequenced.
        max_waiting_bytes: Most bytes of enforcers' requests that wait for their answers; one request fits always.
        proof_timeout_seconds: Longest wait for a checkpoint that covers a record.
        session_seconds: Lifetime of a dashboard login.
        insecure_cookies: Send the login cookie over plain HTTP, for a loopback address only.
        engine_workers: Most single decisions that are made at once for one log, each in its own process of an engine;
            there is one more for all others.
        engine_batch_workers: Most batches (tests, replays) that are evaluated at once for one log besides; likewise.
        engine_seconds: A policy engine's process that has not decided a request by then is killed.
        engine_memory_bytes: Most address space of a policy engine's process.
        engine_cellar: Where policy engines of other versions are kept; in the data directory by default.
        opa_url: Base URL of the operator's OPA server, which is asked for bundles that want one; none by default.
        opa_token: URI of the bearer token for it.
        opa_seconds: For one question to it and its answer.
        max_requests: Most requests with a token that one log has in hand at once.
        logs: A file that names several logs, each with what differs from these settings.
        oidc_issuer: The OpenID provider by which people log in; none by default. See docs/people.md.
        oidc_client_id: What this service is called there.
        oidc_client_secret: URI of its secret there; none for a public client.
        oidc_ca: File with the certificates that must vouch for its host, PEM; the system's by default.
        oidc_scopes: What is asked for.
        oidc_role_claim: Claim of the ID token with a person's roles; dots lead into nested objects.
        oidc_roles: ``VALUE=ROLE`` pairs with commas between them: which value of that claim means which role.
        oidc_log_claim: Claim of the ID token that must name the log's id; none by default.
        oidc_email_domains: Domains, with commas between them, of which a verified address must be; any by default.
        oidc_require: ``ROLE=acr:VALUE`` or ``ROLE=amr:VALUE`` pairs: how somebody must have logged in for a role.
        oidc_seconds: How long a login counts.
        break_glass: With a provider, let tokens made at the console in as well; each says so.
        operator_token: Where several logs are served: URI of the secret that opens health and metrics of all of them.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

    data_dir: Path = Path("/var/lib/tallystick")
    keys_dir: Path = Path("/etc/tallystick/keys")
    database_url: str = ""
    anchor: str = ""
    anchor_retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    anchor_endpoint: str | None = None
    anchor_credentials: Annotated[str, Field(pattern=_CREDENTIALS)] = ""
    anchor_accept: str = ""
    tiles: str = ""
    tiles_retention_days: Annotated[int, Field(ge=0, le=36_500)] | None = None
    tiles_endpoint: str | None = None
    tiles_credentials: Annotated[str, Field(pattern=_CREDENTIALS)] = ""
    retention: Path | None = None
    expiry_interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 3600.0
    witness_policy: Path | None = None
    witness_mode: Literal["open", "closed"] = "open"
    witness_timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = 3.0
    tsa_url: str = ""
    webhook_key: Annotated[str, Field(pattern=r"^((file|env):.+)?$")] = ""
    tsa_certificates: Path | None = None
    tsa_policy: Annotated[str, Field(pattern=r"^([0-2](\.(0|[1-9][0-9]*))+)?$")] = ""
    tsa_interval_seconds: Annotated[float, Field(ge=1, le=7 * 86_400)] = 3600.0
    log_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "main"
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")] = "main"
    origin: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,121}$")] = "tallystick.invalid/main"
    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")] = "production"
    service_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")] = "service"
    listen: Annotated[str, Field(pattern=r"^[^\s/]+:\d{1,5}$")] = "127.0.0.1:8787"
    tls_certificate: Path | None = None
    tls_key: Annotated[str, Field(pattern=r"^((file|env):.+)?$")] = ""
    tls_client_ca: Path | None = None
    tls_client_certificates: Literal["", "none", "optional", "require"] = ""
    tls_client_names: str = ""
    tls_groups: Literal["strict", "permissive"] = "permissive"
    tls_minimum: Literal["1.2", "1.3"] = "1.3"
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    worker_listen: Annotated[str, Field(pattern=r"^([^\s/]+:\d{1,5})?$")] = ""
    external_url: str = "http://127.0.0.1:8787"
    bundle_review: Literal["four_eyes", "solo"] = "four_eyes"
    bundle_trust: Path | None = None
    access_request_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    access_request_approvers: Annotated[int, Field(ge=1, le=16)] = 1
    public_log: bool = False
    checkpoint_interval_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 1.0
    audit_interval_seconds: Annotated[float, Field(ge=0, le=366 * 86_400, allow_inf_nan=False)] = 86_400.0
    audit_full_interval_seconds: Annotated[float, Field(ge=0, le=3660 * 86_400, allow_inf_nan=False)] = 7 * 86_400.0
    heartbeat_interval_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    max_request_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 16 * 1024 * 1024
    max_body_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    max_batch_records: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    max_waiting_records: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    max_waiting_bytes: Annotated[int, Field(ge=1024, le=1 << 36)] = 128 * 1024 * 1024
    proof_timeout_seconds: Annotated[float, Field(ge=0.1, le=300)] = 30.0
    session_seconds: Annotated[int, Field(ge=60, le=7 * 86_400)] = 8 * 3600
    insecure_cookies: bool = False
    engine_workers: Annotated[int, Field(ge=1, le=64)] = 2
    engine_batch_workers: Annotated[int, Field(ge=1, le=64)] = 2
    engine_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    engine_memory_bytes: Annotated[int, Field(ge=1536 << 20, le=1 << 40)] = 2 << 30
    engine_cellar: Path | None = None
    opa_url: str = ""
    opa_token: Annotated[str, Field(pattern=r"^((file|env):.+)?$")] = ""
    opa_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    max_requests: Annotated[int, Field(ge=1, le=100_000)] = 1_024
    oidc_issuer: Annotated[str, Field(max_length=512)] = ""
    oidc_client_id: Annotated[str, Field(max_length=256)] = ""
    oidc_client_secret: Annotated[str, Field(pattern=r"^((file|env):.+)?$")] = ""
    oidc_ca: Path | None = None
    oidc_scopes: Annotated[str, Field(pattern=r"^openid( [!-~]+)*$")] = "openid profile email"
    oidc_role_claim: Annotated[str, Field(min_length=1, max_length=512)] = "roles"
    oidc_roles: str = ""
    oidc_log_claim: Annotated[str, Field(max_length=512)] = ""
    oidc_email_domains: str = ""
    oidc_require: str = ""
    oidc_seconds: Annotated[int, Field(ge=60, le=MAX_PERSON_SECONDS)] = PERSON_SECONDS
    break_glass: bool = False
    logs: Path | None = None
    operator_token: Annotated[str, Field(pattern=r"^((file|env):.+)?$")] = ""

    @field_validator(
        "logs", "oidc_ca", "engine_cellar", "bundle_trust", "tls_certificate", "tls_client_ca", mode="before"
    )
    @classmethod
    def _no_file(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("listen", "worker_listen")
    @classmethod
    def _a_port(cls, value: str) -> str:
        if value and int(value.rpartition(":")[2]) > MAX_PORT:
            raise ValueError(f"a port is at most {MAX_PORT}")
        return value

    @field_validator("anchor", "tiles")
    @classmethod
    def _known_place(cls, value: str) -> str:
        if value and not value.startswith(("directory:", "s3://")):
            raise ValueError("must start with directory: or s3://")
        return value

    @field_validator("anchor_retention_days", "tiles_retention_days", mode="before")
    @classmethod
    def _empty_is_undecided(cls, value: object) -> object:
        return None if value == "" else value  # the same

    @field_validator("anchor_endpoint", "tiles_endpoint")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None  # a variable that is set to nothing, as a compose file does

    @property
    def effective_database_url(self) -> str:
        """The database, with its default."""
        return self.database_url or f"sqlite:///{self.data_dir / 'ledger.db'}"

    @property
    def effective_anchor(self) -> str:
        """The anchor, with its default."""
        return self.anchor or f"directory:{self.data_dir / 'anchor'}"

    @property
    def effective_tiles(self) -> str:
        """The tile store, with its default."""
        return self.tiles or f"directory:{self.data_dir / 'logs'}"

    @property
    def effective_engine_cellar(self) -> Path:
        """Where engines of other versions are kept, with its default."""
        return self.engine_cellar or self.data_dir / "engines"

    @property
    def accepted_weaknesses(self) -> tuple[str, ...]:
        """What the anchor's bucket need not refuse."""
        return tuple(name for name in (part.strip() for part in self.anchor_accept.split(",")) if name)

    @property
    def host(self) -> str:
        """Host to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port to listen on."""
        return int(self.listen.rpartition(":")[2])

    def require_database(self) -> None:
        """Refuse to look into an SQLite file that nobody has made.

        Raises:
            ConfigError: It is not there; opening it would make it.
        """
        _, is_sqlite, name = self.effective_database_url.partition("sqlite:///")
        if is_sqlite and name and not Path(name).is_file():
            raise ConfigError(
                f"there is no database yet at {name}: run `tallystick migrate` or `tallystick serve` first"
            )

    def worker_place(self, number: int) -> tuple[str, int]:
        """Return host and port at which a worker answers alone; `worker_listen` says where the first does."""
        host, _, port = self.worker_listen.rpartition(":")
        return host.strip("[]"), int(port) + number

    def warnings(self) -> list[str]:
        """Return what is weaker than production should be, one sentence each."""
        found = []
        if self.origin.startswith("tallystick.invalid/"):
            found.append("TALLYSTICK_ORIGIN is the placeholder: checkpoints of this log name nobody.")
        if self.effective_anchor.startswith("directory:"):
            found.append("The anchor is a directory: whoever owns this machine can rewrite it. Use S3 Object Lock.")
        if self.bundle_review == "solo":
            found.append("Policies become active without a second person's review; each such activation says so.")
        found += self._weak_storage()
        if self.host not in _LOOPBACK and self.external_url.lower().startswith("http://"):
            found.append("The service listens beyond this machine and its URL is plain HTTP: tokens can be overheard.")
        if self.workers > 1 and not self.worker_listen:
            found.append("No worker has a place of its own: /metrics tells of whichever worker answers.")
        if self.oidc_issuer and self.break_glass:
            found.append(
                "Tokens made at the console let people in beside the OpenID provider; each such login says so."
            )
        if self.insecure_cookies:
            found.append("Login cookies are sent over plain HTTP.")
        return found

    def _weak_storage(self) -> list[str]:
        found = []
        if self.effective_anchor.startswith("s3://"):
            if self.effective_tiles.startswith("s3://") and self.anchor_credentials == self.tiles_credentials:
                found.append("Tiles and anchor use the same S3 credentials: who takes one has both. Give each its own.")
            if self.accepted_weaknesses:
                told = ", ".join(self.accepted_weaknesses)
                found.append(f"The anchor's bucket is accepted though it may not refuse: {told}.")
        if self.effective_tiles.startswith("s3://") and self.tiles_retention_days == 0:
            found.append("Full tiles and bundles are not locked: whoever holds the credentials can delete them.")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What one process may work on.

    Attributes:
        settings: Those of the process; with a logs file, no log's own.
        logs: Those of each log.
    """

    settings: Settings
    logs: tuple[Settings, ...]

    def one(self) -> Settings:
        """Return the settings of the only log.

        Raises:
            ConfigError: There are several.
        """
        if len(self.logs) > 1:
            names = ", ".join(log.log_id for log in self.logs)
            raise ConfigError(f"several logs are here; name one, by --log-id or {_PREFIX}LOG_ID: {names}")
        return self.logs[0]


def load_settings(**overrides: object) -> Settings:
    """Read the settings of one log from the environment.

    Args:
        overrides: Settings given on the command line.

    Raises:
        ConfigError: A setting is missing or wrong; its name and the reason, not its value. Or there are several logs,
            and none is named.
    """
    return load_installation(**overrides).one()


def load_installation(**overrides: object) -> Installation:
    """Read the settings of a process and of every log that it may serve.

    Args:
        overrides: Settings given on the command line.

    Raises:
        ConfigError: A setting is missing or wrong; its name and the reason, not its value. Or two logs share what each
            must have for itself.
    """
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]  # pydantic checks
    except ValidationError as error:
        name, reason = _first(error)
        raise ConfigError(f"{_PREFIX}{name.upper()}: {reason}") from None
    if settings.insecure_cookies and settings.host not in _LOOPBACK:
        raise ConfigError(f"{_PREFIX}INSECURE_COOKIES is for a loopback address only")
    _check_workers(settings)
    if settings.logs is None:
        return Installation(settings=settings, logs=(settings,))
    return Installation(settings=settings, logs=_chosen(settings, _logs(settings, settings.logs)))


def _check_workers(settings: Settings) -> None:
    if settings.workers == 1:
        return
    if settings.effective_database_url.startswith("sqlite"):
        raise ConfigError(f"{_PREFIX}WORKERS: SQLite is for one process; several need PostgreSQL")
    if settings.worker_listen and settings.worker_place(settings.workers - 1)[1] > MAX_PORT:
        raise ConfigError(f"{_PREFIX}WORKER_LISTEN: {settings.workers} workers need as many ports from there on")


def _first(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_input=False, include_url=False)[0]
    return str(first["loc"][0] if first["loc"] else ""), first["msg"]


def _logs(settings: Settings, file: Path) -> tuple[Settings, ...]:
    entries = read_logs_file(file, known=frozenset(Settings.model_fields) - PROCESS_WIDE)
    logs = tuple(_log(settings, entry) for entry in entries)
    require_apart(logs)
    require_own_people(logs)
    return logs


def _log(settings: Settings, entry: LogEntry) -> Settings:
    """Return the settings of one entry: its own, then those of the process, but places of its own in any case."""
    own = {"data_dir": settings.data_dir / entry.log_id, "keys_dir": settings.keys_dir / entry.log_id}
    common = {"database_url": settings.effective_database_url, "logs": None}
    try:
        return Settings(**{**settings.model_dump(), **own, **entry.values, **common})
    except ValidationError as error:
        name, reason = _first(error)
        raise ConfigError(f"{entry.place}.{name}: {reason}") from None


def _chosen(settings: Settings, logs: tuple[Settings, ...]) -> tuple[Settings, ...]:
    """Return the log that the environment or command line names, or all."""
    if "log_id" not in settings.model_fields_set:
        return logs
    chosen = tuple(log for log in logs if log.log_id == settings.log_id)
    if not chosen:
        raise ConfigError(f"{_PREFIX}LOG_ID: the file of {_PREFIX}LOGS has no log {settings.log_id}")
    return chosen


def passphrase() -> str | None:
    """Return the passphrase of key files: ``TALLYSTICK_PASSPHRASE``, or the file that ``…_PASSPHRASE_FILE`` names.

    Raises:
        ConfigError: The file cannot be read.
    """
    if (text := os.environ.get(f"{_PREFIX}PASSPHRASE")) is not None:
        return text
    if (name := os.environ.get(f"{_PREFIX}PASSPHRASE_FILE")) is None:
        return None
    try:
        return Path(name).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the passphrase file cannot be read") from error
