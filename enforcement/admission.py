"""From bytes to a case: what the message says, who sent it, what it is about, and whether a policy gets to see it.

What is elsewhere: asking the policy and enforcing its answer (`enforcement.pep`).

Who the caller is was found out by the transport (`enforcement.authenticator`), and comes first: a stranger learns
nothing about servers, sessions or the way messages are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from enforcement.answers import MAX_TOOLS
from enforcement.argument_tags import argument_tags, tagged_arguments
from enforcement.config import GatewayConfig, ServerSettings
from enforcement.drafts import Case, Ruling
from enforcement.facts import Networks, build_request, local_time
from enforcement.identity import Identity
from enforcement.mcp import (
    INITIALIZE,
    Kind,
    Message,
    MessageLimits,
    Refusal,
    incomplete_message,
    parse_message,
    read_json_message,
)
from enforcement.mcp_headers import single_header
from enforcement.offload import off_loop
from enforcement.pins import ToolPins
from enforcement.resources import challenge
from enforcement.restrictions import Restrictions
from enforcement.revisions import ASSUMED_REVISION, BATCHING
from enforcement.rounds import Rounds
from enforcement.server_list import Servers
from enforcement.server_messages import read_server_message
from enforcement.sessions import Sessions
from enforcement.state import Change
from enforcement.transport_requests import LISTEN, read_transport_request
from enforcement.verdicts import Inbound, Permitted
from ledger import body_fields
from ledger.clock import Clock
from ledger.restrictions import Restriction
from policies.model import with_signals
from policies.signals import Signals, ToolState

__all__ = ["Admission", "refusing"]

_TOOL_METHOD: Final = "tools/call"
_TOOLS_CHANGED: Final = "notifications/tools/list_changed"


def refusing(decision: body_fields.Effect, reason: str) -> Ruling:
    """Return the ruling on a message that is refused without asking a policy."""
    return Ruling(decision=decision, enforcement="deny", reason=reason)


class Admission:
    """Knows servers, sessions and networks; owned by the event loop."""

    def __init__(
        self,
        config: GatewayConfig,
        servers: Servers,
        sessions: Sessions,
        clock: Clock,
        *,
        rounds: Rounds | None = None,
        restrictions: Restrictions | None = None,
        pins: ToolPins | None = None,
    ) -> None:
        """Take the configuration.

        Args:
            config: Networks, limits.
            servers: What may be called at all.
            sessions: Knows sessions and blocks.
            clock: Tells the time of each call.
            rounds: Knows further rounds of calls; without it none goes on.
            restrictions: Knows what is contained; None if nobody says so.
            pins: Knows which definitions of tools stand; None if all do.
        """
        self._pins = pins
        self._rounds = rounds
        self._config = config
        self._sessions = sessions
        self._clock = clock
        self._restrictions = restrictions
        self._networks = Networks(config.networks)
        self._servers = servers
        self._digests: dict[str, dict[str, str]] = {}
        limits = config.limits
        self._limits = MessageLimits(
            body_bytes=limits.body_bytes, header_count=limits.header_count, header_bytes=limits.header_bytes
        )
        # An event of a stream is bounded as an answer is; what of it would be judged, as a message is.
        self._server_limits = replace(self._limits, body_bytes=min(limits.body_bytes, limits.answer_bytes))

    def knows(self, server: str) -> bool:
        """Whether there is such a server now."""
        return self._servers.get(server) is not None

    def takes_batches(self, inbound: Inbound) -> bool:
        """Whether a message is of a revision in which several may come in one body."""
        server = self._servers.get(inbound.server)
        revisions = (None if server is None else server.revisions) or self._config.protocol.revisions
        said = single_header(inbound.headers, "mcp-protocol-version")
        version = said or inbound.negotiated or ASSUMED_REVISION
        return version in BATCHING and version in revisions and inbound.negotiated in (None, version)

    def body_limit(self, *, known: bool) -> int:
        """Return how long a message may be, in bytes, before its body is read."""
        limits = self._config.limits
        return limits.body_bytes if known else min(limits.body_bytes, limits.unauthenticated_body_bytes)

    async def read(self, body: bytes, server: str, *, negotiated: str | None = None) -> Message | Refusal:
        """Read a client's message of a transport without headers; `Inbound.parsed` hands it on.

        Args:
            body: Its bytes.
            server: The server that it is for.
            negotiated: The revision that was agreed on; None before that.
        """
        revisions = self._revisions(server)
        return await off_loop(
            len(body), read_json_message, body, limits=self._limits, revisions=revisions, negotiated=negotiated
        )

    async def read_from_server(self, body: bytes, server: str, *, negotiated: str | None) -> Message | Refusal:
        """Read a server's request or notification, likewise."""
        revisions = self._revisions(server)
        agreed = negotiated or ASSUMED_REVISION
        return await off_loop(
            len(body), read_server_message, body, limits=self._limits, revisions=revisions, negotiated=agreed
        )

    def _revisions(self, server: str) -> Sequence[str]:
        known = self._servers.get(server)
        return (None if known is None else known.revisions) or self._config.protocol.revisions

    def learn_tools(self, listing: Permitted, digests: Mapping[str, str]) -> None:
        """Remember the digests of a server's tools as it has just listed them; a first page replaces what was known.

        Args:
            listing: The call that was answered.
            digests: Tool name → digest. Beyond `MAX_TOOLS` of a server nothing is added.
        """
        known = self._digests.get(listing.server.name, {}) if listing.message.continues else {}
        together = {**known, **digests}
        self._digests[listing.server.name] = together if len(together) <= MAX_TOOLS else known

    def challenge(self, inbound: Inbound, reason: str) -> str | None:
        """Return what a caller is told of the credential that would be needed; None if that is not what it lacks."""
        presented = any(name.lower() == b"authorization" for name, _ in inbound.headers)
        if reason == "unauthenticated":
            return challenge(self._config.identity, inbound.server, error="invalid_token" if presented else None)
        if reason == "insufficient_scope":
            return challenge(self._config.identity, inbound.server, error=reason)
        return None

    def open_case(self, inbound: Inbound, decision_id: str) -> Case:
        """Return a case with nothing in it but what arrived."""
        place = self._networks.locate(inbound.peer)
        return Case(
            decision_id=decision_id,
            now_ms=self._clock.now_ms(),
            inbound=inbound,
            place=place,
            strictest=self._servers.strictest_capture,
            continues=inbound.continues,
        )

    async def admit(self, case: Case) -> Ruling | None:
        """Fill a case; return why the message goes no further, or None if a policy shall judge it.

        Raises:
            StorageError: Whether the caller was released could not be read.
        """
        case.server = self._servers.get(case.inbound.server)
        parsed = await self._read(case.inbound, case.server)
        if isinstance(parsed, Message):
            case.message = parsed
        else:
            case.refusal = parsed
        case.identity = case.inbound.identity
        if case.identity is None:
            return refusing("DENY", "unauthenticated")
        tags = await self._argument_tags(case)
        blocked = self._sessions.blocked(case.identity)  # before the session is touched: a release begins a new one
        if not blocked and self._answers(case):
            return None
        if self._pins is not None and case.server is not None and _tool_of(case.message) is not None:
            await self._pins.known(case.server.name)  # no call outruns a list that is being fetched
        self._gather(case, case.identity, tags)
        return (
            self._object_to_caller(case, blocked=blocked)
            or _object_to_message(case)
            or _object_to_place(case)
            or self._object_to_round(case, case.identity)
            or await self._object_to_claim(case)
        )

    def _answers(self, case: Case) -> bool:
        """Whether it is the client's answer to a server's request; then it is that request's outcome, and no more."""
        message, dialogue = case.message, case.inbound.dialogue
        if message is None or message.kind is not Kind.RESPONSE or dialogue is None or message.request_id is None:
            return False
        # Not even where too much is under way: calls that wait for such answers are what is under way.
        if self._object_to_caller(case, blocked=False) is not None:
            return False
        if not dialogue.awaits(message.request_id):
            return False
        case.answered = replace(dialogue.take(message.request_id), message=message)
        return True

    def settle_round(self, case: Case, *, permitted: bool) -> list[Change]:
        """Return what becomes durable with the decision about a message, if it is a further round of a call."""
        if case.round is None or self._rounds is None:
            return []
        return self._rounds.settle(case.round, permitted=permitted)

    def _object_to_round(self, case: Case, identity: Identity) -> Ruling | None:
        """Return why a message that says it is a further round of a call is none."""
        message, server = case.message, case.server
        if message is None or message.round is None or server is None:
            return None
        if message.round.state is None and self._config.protocol.unasked_answers == "pass":
            return None  # a first round of its own
        if self._rounds is not None:
            case.round = self._rounds.open(case.inbound.body, message, identity, server.name)
        if case.round is None:
            return refusing("DENY", "unknown_round")
        case.continues = case.round.token.root
        return None

    async def _object_to_claim(self, case: Case) -> Ruling | None:
        """Return why a further round goes no further here: another gateway has had it, or nobody can say."""
        if case.round is None or self._rounds is None:
            return None
        claimed = await self._rounds.claim(case.round)
        if claimed is None:
            return refusing("INDETERMINATE", "rounds_unavailable")
        return None if claimed else refusing("DENY", "unknown_round")

    async def _read(self, inbound: Inbound, server: ServerSettings | None) -> Message | Refusal:
        if not inbound.complete:
            return incomplete_message()
        if inbound.parsed is not None:
            return inbound.parsed
        revisions = (None if server is None else server.revisions) or self._config.protocol.revisions
        if inbound.action is not None:
            return read_transport_request(
                inbound.action,
                inbound.headers,
                limits=self._limits,
                revisions=revisions,
                negotiated=inbound.negotiated,
            )
        if inbound.direction == "server":
            assert inbound.negotiated is not None  # of the stream that it stands in
            return await off_loop(
                len(inbound.body),
                read_server_message,
                inbound.body,
                limits=self._server_limits,
                revisions=revisions,
                negotiated=inbound.negotiated,
            )
        return await off_loop(
            len(inbound.body),
            parse_message,
            inbound.body,
            inbound.headers,
            limits=self._limits,
            revisions=revisions,
            negotiated=inbound.negotiated,
        )

    async def _argument_tags(self, case: Case) -> Sequence[str]:
        if case.message is None or case.server is None or case.message.method != _TOOL_METHOD:
            return ()
        tagged = tagged_arguments(case.server, case.message.name)
        return await off_loop(len(case.inbound.body), argument_tags, tagged, case.message.arguments) if tagged else ()

    def _gather(self, case: Case, identity: Identity, tags: Sequence[str]) -> None:
        state = self._sessions.touch(identity, case.now_ms)
        case.session = state.session
        if case.message is None or case.server is None:
            return
        case.tool_digest = self._tool_digest(case.server, case.message)
        case.request = build_request(
            identity=identity,
            message=case.message,
            server=case.server,
            time=local_time(case.now_ms, self._config.zone),
            place=case.place,
            state=state,
            argument_tags=tags,
        )

    def _tool_digest(self, server: ServerSettings, message: Message) -> str | None:
        if message.method != _TOOL_METHOD or message.name is None:
            return None
        return self._digests.get(server.name, {}).get(message.name)

    def tool_digest_now(self, case: Case) -> str | None:
        """Return the digest of a call's tool as it was last listed by now."""
        if case.server is None or case.message is None:
            return None
        return self._tool_digest(case.server, case.message)

    def _lacks_scope(self, case: Case) -> bool:
        scopes = None if case.identity is None else case.identity.scopes
        return scopes is not None and not scopes.issuperset(self._config.identity.scopes_for(case.inbound.server))

    def _object_to_caller(self, case: Case, *, blocked: bool) -> Ruling | None:
        origin = single_header(case.inbound.headers, "origin")
        if origin is not None and origin not in self._config.allowed_origins:
            return refusing("DENY", "origin_not_allowed")
        if case.server is None:
            return refusing("DENY", "unknown_server")
        if self._lacks_scope(case):
            return refusing("DENY", "insufficient_scope")
        if case.inbound.unknown_session:
            return refusing("DENY", "unknown_session")
        return refusing("DENY", "session_ended") if blocked else self._object_to_what_stands(case)

    def _object_to_what_stands(self, case: Case) -> Ruling | None:
        reason = self.restricted(case)
        return None if reason is None else refusing("DENY", reason)

    @property
    def restrictions_stale(self) -> bool:
        """Whether nobody can say what else is stopped by now."""
        return self._restrictions is not None and self._restrictions.stale

    def restricted(self, case: Case) -> str | None:
        """Return why a call must not go on, whatever a policy says: the reason of its record; and note what stands.

        Raises:
            StorageError: A kill stands against it, and whether that was released here could not be read.
        """
        tool = _tool_of(case.message)
        if self._restrictions is None or case.identity is None:
            return self._note_tool(case, tool)
        found = self._restrictions.standing_against(
            case.identity,
            session=case.session_name,
            server=None if case.server is None else case.server.name,
            tool=tool,
        )
        if found is None:
            return self._note_tool(case, tool)
        case.restriction = found
        return _reason_of(found)

    def stopped(self, identity: Identity, permitted: Permitted) -> str | None:
        """Return why a call that was permitted must not go on after all.

        Raises:
            StorageError: As `restricted`.
        """
        # Each notification comes by here, though only the first of a stream is judged (`enforcement.notices`).
        said = permitted.message.method if permitted.message.direction == "server" else None
        if self._pins is not None and said == _TOOLS_CHANGED:
            self._pins.stale(permitted.server.name)
        tool = _tool_of(permitted.message)
        if self._restrictions is None:
            return self._tool_objection(permitted.server, tool)
        found = self._restrictions.standing_against(
            identity,
            session=permitted.session,
            named=False,
            server=permitted.server.name,
            tool=tool,
        )
        return self._tool_objection(permitted.server, tool) if found is None else _reason_of(found)

    def _note_tool(self, case: Case, tool: str | None) -> str | None:
        """Return why a tool may not be called because of its definition; and note it, where no policy will be asked."""
        reason = self._tool_objection(case.server, tool)
        if reason is not None and case.request is not None and case.evaluation is None:
            state: ToolState = "quarantined" if reason == "tool_quarantined" else "unpinned"
            case.request = with_signals(case.request, Signals(tool_state=state))
        return reason

    def _tool_objection(self, server: ServerSettings | None, tool: str | None) -> str | None:
        """Return why a tool may not be called because of its definition."""
        if self._pins is None or server is None or tool is None:
            return None
        return self._pins.objection(server.name, tool)


def _tool_of(message: Message | None) -> str | None:
    return message.name if message is not None and message.method == _TOOL_METHOD else None


def _reason_of(restriction: Restriction) -> str:
    return "contained" if restriction.kind == "containment" else "session_ended"


def _object_to_message(case: Case) -> Ruling | None:
    if case.refusal is not None:
        return refusing("INDETERMINATE", case.refusal.reason)
    return refusing("INDETERMINATE", "overloaded") if case.inbound.overloaded else None


def _object_to_place(case: Case) -> Ruling | None:
    """Return why a message has no place in its session."""
    message, dialogue = case.message, case.inbound.dialogue
    assert message is not None  # or it was refused
    if case.inbound.batched and message.method == INITIALIZE:
        return refusing("INDETERMINATE", "batch")
    if message.kind is Kind.RESPONSE:
        return refusing("DENY", "unknown_response")
    if dialogue is None or message.direction == "server":
        return None
    if message.cancels is not None and not dialogue.in_flight(message.cancels):
        return refusing("DENY", "unknown_call")
    if message.method == LISTEN:
        event = single_header(case.inbound.headers, "last-event-id")
        return None if event is None or dialogue.has_sent(event) else refusing("DENY", "unknown_event")
    return None
