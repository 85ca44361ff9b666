"""The gateway's settings: what there is, what holds by default, what is refused.

Pure, but for what `enforcement.config_types` looks up. Reading the file is `enforcement.config_files`' part.

Defaults are those of production: enforce, strict recording, nothing allowed that is not written down. What a setting
means is said here and, for operators, in ``docs/enforcement.md``. Keys and tokens are named by URI (``file:PATH``,
``env:NAME``), never written down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from enforcement.config_approvals import ApprovalRule, ApprovalSettings
from enforcement.config_capture import MAX_ARGUMENTS, ArgumentSettings, Capture
from enforcement.config_identity import IdentitySettings
from enforcement.config_inspection import InspectionRules, InspectionSettings
from enforcement.config_pins import PinningSettings, ToolPinSettings
from enforcement.config_profiles import ProfileSettings
from enforcement.config_protocol import ProtocolSettings, Revisions
from enforcement.config_restrictions import RestrictionSettings
from enforcement.config_stdio import StdioSettings
from enforcement.config_telemetry import TelemetrySettings
from enforcement.config_tls import ClientTLSSettings, ListenerTLSSettings, refuse_tls_without_https
from enforcement.config_types import (
    CIDR,
    URL,
    Bytes,
    LogId,
    Mode,
    Names,
    Recording,
    RecordName,
    Seconds,
    SecretURI,
    Settings,
    Tell,
    Zone,
    not_empty,
    refuse_twice,
)
from enforcement.config_upstream import ClientCredentials, PinSettings
from enforcement.config_windows import WindowSettings

__all__ = [
    "MAX_SERVERS",
    "BundleSettings",
    "EngineSettings",
    "GatewayConfig",
    "KeySettings",
    "Limits",
    "NetworkSettings",
    "OPASettings",
    "PrincipalSettings",
    "RecordingSettings",
    "ServerList",
    "ServerSettings",
    "ServiceSettings",
    "SessionSettings",
    "ToolSettings",
]

MAX_SERVERS: Final = 1000
"""Most servers of a gateway."""

_MAX_TAGS: Final = 64  # of one call: what a record holds (`ledger.bodies.Names`)


class ServiceSettings(Settings):
    """The service that keeps the ledger and hands out bundles.

    Attributes:
        url: Base URL.
        token: Where the enforcer's token is.
        timeout_seconds: For one request to it.
        tls: What TLS shows and asks for on the way to it.
        trust: File with the log's public keys, from elsewhere than the service: what the ledger acknowledges is kept
            until it has proven it. Without it, its word is enough.
        proof_seconds: How often it is looked for proofs, while something waits for one.
    """

    url: URL
    token: SecretURI
    timeout_seconds: Seconds = 10
    trust: Path | None = None
    proof_seconds: Seconds = 2
    tls: ClientTLSSettings | None = None

    @model_validator(mode="after")
    def _reached_by_tls(self) -> Self:
        refuse_tls_without_https(self.url, self.tls)
        return self


class KeySettings(Settings):
    """The gateway's keys, each another key (architecture.md, invariant 10).

    Attributes:
        signing: Signs records; Ed25519, purpose ``enforcer``.
        pseudonym: Makes pseudonyms; one for a tenant, purpose ``pseudonym``.
        spool: Encrypts payloads that wait in the spool, purpose ``spool``.
    """

    signing: SecretURI
    pseudonym: SecretURI
    spool: SecretURI


class NetworkSettings(Settings):
    """A label for the networks that callers come from.

    Attributes:
        label: What policies read as ``context.environment.network``.
        cidrs: Its address ranges; where several labels match, the narrowest range wins.
    """

    label: RecordName
    cidrs: Annotated[tuple[CIDR, ...], AfterValidator(not_empty)]


class PrincipalSettings(Settings):
    """Who a bearer token stands for.

    Attributes:
        token_sha256: SHA-256 of the token, hexadecimal; the token itself is not kept.
        name: What the token is called among people, to find the line that must go.
        not_after: The token is no good from then on; with a time zone. Left out: until the line is taken out.
        agent: The agent.
        user: On whose behalf it acts.
        roles: Its roles.
        mfa: A second factor was part of issuing the token.
    """

    token_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    name: RecordName | None = None
    not_after: AwareDatetime | None = None
    agent: RecordName
    user: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    roles: Names = ()
    mfa: bool = False


class ToolSettings(Settings):
    """What holds for one tool.

    Attributes:
        name: As the server names it.
        tags: Added to the server's.
        mode: Instead of the server's.
        recording: Instead of the server's.
        capture: Instead of the server's.
        arguments: What holds for single arguments of it.
        inspection: What is said otherwise than for the server of the inspection of its calls and their answers.
        approvals: How its calls are held until people have agreed, instead of the server's.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    tags: Names = ()
    mode: Mode | None = None
    recording: Recording | None = None
    capture: Capture | None = None
    arguments: Annotated[tuple[ArgumentSettings, ...], Field(max_length=MAX_ARGUMENTS)] = ()
    inspection: InspectionRules | None = None
    approvals: ApprovalRule | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        refuse_twice([argument.pointer for argument in self.arguments], "an argument is listed twice")
        return self


class ServerSettings(Settings):
    """An MCP server behind the gateway.

    Attributes:
        name: Its part of the gateway's path, ``/servers/NAME/mcp``, and its name in records and policies.
        url: Its MCP endpoint; None for one that is not reached over HTTP: it is wrapped, or runs in this process.
        authorization: Where the ``Authorization`` value is that the gateway itself presents to the server; or
        oauth: how it gets a token of its own for it.
        pin: Which server it must be, beside what an authority says of its host.
        pins: Which definitions of its tools stand.
        owner: The person or team that answers for it; a server without one is listed as unowned.
        tags: Its tags.
        mode: ``observe`` records decisions without enforcing them.
        recording: ``strict``: a call is forwarded only once its decision is in the ledger. ``available``: once it is
            in the gateway's own spool. ``by_kind``: strict for what changes something, available for what reads
            (`enforcement.strictness`).
        capture: How much of calls and answers goes into the vault (`enforcement.capture`).
        tell: What a caller learns of a policy's denial: ``full``: reason, rule, drift, and what would be needed;
            ``reason``; or ``nothing`` but that it is one, and its decision id.
        tools: Exceptions for single tools.
        inspection: What is said otherwise than for the gateway of the inspection of its messages and answers.
        revisions: Revisions of the protocol that pass, in place of the gateway's.
        tls: What TLS shows and asks for on the way to it.
        approvals: How its calls are held until people have agreed, instead of the gateway's.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
    url: URL | None = None
    authorization: SecretURI | None = None
    oauth: ClientCredentials | None = None
    pin: PinSettings | None = None
    pins: ToolPinSettings = ToolPinSettings()
    owner: RecordName | None = None
    tags: Names = ()
    mode: Mode = "enforce"
    recording: Recording = "by_kind"
    capture: Capture = "full"
    tell: Tell = "full"
    tools: tuple[ToolSettings, ...] = ()
    inspection: InspectionRules | None = None
    revisions: Revisions | None = None
    tls: ClientTLSSettings | None = None
    approvals: ApprovalRule | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        refuse_twice([tool.name for tool in self.tools], "a tool is listed twice")
        for tool in self.tools:
            tags = {*self.tags, *tool.tags, *(tag for argument in tool.arguments for tag in argument.tags)}
            if len(tags) > _MAX_TAGS:
                raise ValueError(f"a call may have {_MAX_TAGS} tags, those of server, tool and arguments together")
        refuse_tls_without_https(self.url, self.tls)
        if self.oauth is not None and (self.authorization is not None or self.url is None):
            raise ValueError("oauth takes a url, and no authorization beside it")
        if self.pin is not None and self.pin.of_certificate and not (self.url or "").startswith("https:"):
            raise ValueError("pin is set for a certificate, but the url is not https")
        return self


class ServerList(Settings):
    """The servers of a gateway in a file of their own, ``servers.yaml``.

    Attributes:
        servers: The servers.
    """

    servers: Annotated[tuple[ServerSettings, ...], AfterValidator(not_empty), Field(max_length=MAX_SERVERS)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        refuse_twice([server.name for server in self.servers], "a server is listed twice")
        return self


class Limits(Settings):
    """Bounds on what comes from outside.

    Attributes:
        body_bytes: Longest message.
        unauthenticated_body_bytes: Longest message of a caller without a valid token; it is recorded, so it must not
            be able to fill the ledger.
        header_count: Most header lines.
        header_bytes: Most bytes of header names and values.
        body_seconds: A message's head must have arrived by then, and its body so long after it.
        concurrent_calls: Calls of known callers that may be under way at once; strangers may have an eighth of that
            number of messages under way beside them.
        answer_bytes: Longest answer, or event of a streamed answer.
        evaluation_seconds: A decision must be made by then.
        upstream_connect_seconds: A connection to a server must stand by then.
        upstream_idle_seconds: Longest silence of a server within an answer, and of a client that does not take it.
        upstream_total_seconds: Longest answer.
    """

    body_bytes: Bytes = 1 << 20
    unauthenticated_body_bytes: Bytes = 16 << 10
    header_count: Annotated[int, Field(ge=16, le=1000)] = 100
    header_bytes: Bytes = 32 << 10
    body_seconds: Seconds = 10
    concurrent_calls: Annotated[int, Field(ge=1, le=100_000)] = 256
    answer_bytes: Bytes = 4 << 20
    evaluation_seconds: Seconds = 2
    upstream_connect_seconds: Seconds = 5
    upstream_idle_seconds: Seconds = 300
    upstream_total_seconds: Seconds = 3600


class RecordingSettings(Settings):
    """How records reach the ledger.

    Attributes:
        strict_seconds: How long a strict call waits for the ledger.
        spool_bytes: Most bytes that wait in the spool; beyond it, calls are denied.
        spool_seconds: Longest time that a record waits in it; beyond it, calls are denied.
        gather_seconds: Records that no call waits for are gathered for so long, and posted together; 0 for not at all.
        batch_records: Most records in one request to the ledger.
        batch_bytes: Most bytes in one request to the ledger; a single record may be larger.
        retry_min_seconds: First pause after a failure; it doubles with each further one.
        retry_max_seconds: Longest pause, a longer wish of the ledger aside.
        heartbeat_seconds: A heartbeat is recorded this often.
        stop_seconds: How long a stopping gateway tries to empty its spool.
    """

    strict_seconds: Seconds = 3
    spool_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 40)] = 256 << 20
    spool_seconds: Seconds = 14_400
    gather_seconds: Annotated[float, Field(ge=0, le=10)] = 0.05
    batch_records: Annotated[int, Field(ge=1, le=10_000)] = 100
    batch_bytes: Bytes = 1 << 20
    retry_min_seconds: Seconds = 0.1
    retry_max_seconds: Seconds = 5
    heartbeat_seconds: Seconds = 60
    stop_seconds: Seconds = 5


class BundleSettings(Settings):
    """How the gateway gets its policies.

    Attributes:
        poll_seconds: The service is asked this often, where it does not hold the question until there is news.
        wait_seconds: How long it may hold one; 0 for not at all.
        trusted_keys: File with the public keys that must have signed a bundle; nobody need have by default.
        max_age_seconds: A bundle that the service has not confirmed for so long decides nothing any more.
    """

    poll_seconds: Seconds = 5
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 30
    trusted_keys: Path | None = None
    max_age_seconds: Seconds = 86_400


class EngineSettings(Settings):
    """The processes in which policies are evaluated.

    Attributes:
        workers: Most decisions of one engine that are made at once, each in a process of its own.
        evaluation_seconds: A process that has not decided by then is killed, and the call denied (``limited``).
        memory_bytes: Address space of a process. The allocator of Rego's engine alone reserves 1 GiB of it.
    """

    workers: Annotated[int, Field(ge=1, le=64)] = 2
    evaluation_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1
    memory_bytes: Annotated[int, Field(ge=1536 << 20, le=1 << 40)] = 2 << 30


class OPASettings(Settings):
    """The operator's own OPA server, for bundles that want one (engine ``opa_server``).

    Attributes:
        url: Its base URL; without TLS only on this machine, for who forges its answers decides.
        token: Where the bearer token for it is.
        timeout_seconds: For one question and its answer; beyond it the call is denied (``limited``).
    """

    url: URL
    token: SecretURI | None = None
    timeout_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1


class SessionSettings(Settings):
    """Sessions under the gateway's own key.

    Attributes:
        idle_seconds: A session without a call for so long has ended.
    """

    idle_seconds: Seconds = 1800


class GatewayConfig(Settings):
    """All settings of one gateway.

    Attributes:
        enforcer_id: Its name in the ledger.
        log_id: The log that it writes to.
        tenant: Whose calls it judges.
        environment: Deployment, such as ``production``.
        zone: IANA time zone in which policies read the hour.
        state_directory: Where spool, sessions and the last bundle are kept; on a disk of its own, if possible.
        service: The service.
        keys: The keys.
        networks: Labels for callers' networks.
        principals: Who may call with an API token.
        identity: Who else may call, with an access token or a certificate, and what is demanded.
        servers: What may be called at all; or
        servers_file: the file that lists them (`ServerList`), a path from the folder of the configuration; it is read
            again while the gateway runs.
        servers_seconds: It is looked at this often.
        allowed_origins: Values of the ``Origin`` header, sent by browsers, that are accepted.
        limits: Bounds.
        recording: How records reach the ledger.
        bundles: How policies reach the gateway.
        sessions: Sessions.
        engines: Where policies are evaluated.
        windows: Behaviour windows across gateways.
        opa: The operator's OPA server, if there is one.
        restrictions: How what is contained reaches the gateway.
        pinning: How it looks after the definitions of tools.
        inspection: What is looked for in messages and answers; without it nothing is.
        approvals: How calls are held until people have agreed; without it nothing is held.
        protocol: Which revisions of the protocol pass.
        tls: TLS where clients arrive; without it they arrive in the clear.
        stdio: How ``tallystick wrap`` runs a server; it refuses to without.
        telemetry: Spans and metrics for a collector; without it there are none.
        profiles: What agents usually do, and departures from it; without it nothing is learned.
    """

    enforcer_id: RecordName
    log_id: LogId
    tenant: RecordName
    environment: RecordName
    zone: Zone
    state_directory: Path
    service: ServiceSettings
    keys: KeySettings
    networks: tuple[NetworkSettings, ...] = ()
    principals: tuple[PrincipalSettings, ...] = ()
    identity: IdentitySettings = IdentitySettings()
    servers: Annotated[tuple[ServerSettings, ...], Field(max_length=MAX_SERVERS)] = ()
    servers_file: Path | None = None
    servers_seconds: Seconds = 2
    allowed_origins: tuple[str, ...] = ()
    limits: Limits = Limits()
    recording: RecordingSettings = RecordingSettings()
    bundles: BundleSettings = BundleSettings()
    sessions: SessionSettings = SessionSettings()
    engines: EngineSettings = EngineSettings()
    windows: WindowSettings = WindowSettings()
    opa: OPASettings | None = None
    restrictions: RestrictionSettings = RestrictionSettings()
    pinning: PinningSettings = PinningSettings()
    inspection: InspectionSettings | None = None
    approvals: ApprovalSettings | None = None
    protocol: ProtocolSettings = ProtocolSettings()
    tls: ListenerTLSSettings | None = None
    stdio: StdioSettings | None = None
    telemetry: TelemetrySettings | None = None
    profiles: ProfileSettings | None = None

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if bool(self.servers) is (self.servers_file is not None):
            raise ValueError("servers are listed either here, under servers, or in servers_file")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        refuse_twice([server.name for server in self.servers], "a server is listed twice")
        refuse_twice([principal.token_sha256 for principal in self.principals], "a token stands for two principals")
        refuse_twice([cidr for network in self.networks for cidr in network.cidrs], "a network has two labels")
        return self
