"""The spans and durations of one message, by the OpenTelemetry conventions for MCP.

The gateway is a server to its client and a client to the server. A message has

* a span of kind ``server``, from its arrival to the durable end of it;
* inside it ``tallystick.decide``, from there to the durable decision;
* inside it, if it was permitted and did go on, a span of kind ``client``, which the server's own belong to.

What is elsewhere: where spans go (`enforcement.telemetry`), what of a trace goes on (`enforcement.trace_headers`).

INVARIANT 6: names, never values. Arguments, results, resource URIs, texts of errors and whatever else could say more
than a name stay out; the session is the pseudonym of the records. What a caller can choose becomes no attribute of a
metric.

INVARIANT: nothing here raises, waits or decides: what cannot be traced is not traced, and the call goes on.

Source: OpenTelemetry semantic conventions for generative AI, Model Context Protocol (status: development).
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from enforcement.drafts import Case
from enforcement.facts import Pseudonyms
from enforcement.judging import OpenTrace
from enforcement.mcp_headers import single_header
from enforcement.messages import Message, Refusal
from enforcement.revisions import STATEFUL, STATELESS
from enforcement.trace_context import TraceContext, read_trace_context
from enforcement.verdicts import Completion, Denied, Inbound, Permitted, Verdict
from ledger import body_fields

__all__ = ["DURATION_BUCKETS", "CallSpans"]

DURATION_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""Bounds of the histograms, in seconds, as the conventions have them."""

_LOG: Final = structlog.get_logger(__name__)
_SECOND_NS: Final = 1_000_000_000
_W3C: Final = TraceContextTextMapPropagator()
_TARGETS: Final = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}
_METHODS: Final = frozenset(
    {
        "completion/complete",
        "elicitation/create",
        "initialize",
        "logging/setLevel",
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/message",
        "notifications/progress",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "roots/list",
        "sampling/createMessage",
        "server/discover",
        "subscriptions/listen",
        "tools/call",
        "tools/list",
    }
)
_OTHER: Final = "_OTHER"
_UNREAD: Final = "unreadable"
_MAX_ID_CHARS: Final = 64
_RESERVED_CODES: Final = (-32768, -32000)
_REVISIONS: Final = STATEFUL | STATELESS
_NOTHING: Final[Mapping[str, str]] = {}


class _ErrorObject(msgspec.Struct):
    """Of a JSON-RPC error, what a span says."""

    code: int
    message: str


class _ErrorAnswer(msgspec.Struct):
    """An answer of the gateway's own."""

    error: _ErrorObject


_READ_ERROR: Final = msgspec.json.Decoder(_ErrorAnswer)


def _name(text: str | None) -> str | None:
    try:
        return None if text is None else msgspec.convert(text, body_fields.Name)
    except msgspec.ValidationError:
        return None


class CallSpans:
    """Traces the calls of one enforcement point. Owned by the event loop."""

    def __init__(self, tracer: Tracer, meter: Meter, pseudonyms: Pseudonyms) -> None:
        """Take where spans and durations go.

        Args:
            tracer: Makes spans.
            meter: Makes histograms.
            pseudonyms: Name sessions.
        """
        self.tracer = tracer
        self.pseudonyms = pseudonyms
        self.server_seconds = _histogram(meter, "mcp.server.operation.duration", "as the gateway's clients see it")
        self.client_seconds = _histogram(meter, "mcp.client.operation.duration", "as the gateway sees its servers")

    def begin(self, inbound: Inbound) -> OpenTrace:
        """Begin to trace a message that has just arrived."""
        return _CallTrace(self, inbound)


def _histogram(meter: Meter, name: str, text: str) -> Histogram:
    return meter.create_histogram(
        name,
        unit="s",
        description=f"Duration of a request or notification, {text}",
        explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
    )


class _CallTrace:
    """The spans of one message."""

    def __init__(self, spans: CallSpans, inbound: Inbound) -> None:
        self._spans = spans
        self._inbound = inbound
        self._began_ns = time_ns()
        self._server: Span | None = None
        self._decide: Span | None = None
        self._client: Span | None = None
        self._client_ns = 0
        self._common: dict[str, AttributeValue] = {}  # of both metrics
        self._called: dict[str, AttributeValue] = {}  # of both spans
        self._address: dict[str, AttributeValue] = {}
        self._span_name = _UNREAD
        self._judged = False
        self._ended = False
        self.headers: Mapping[str, str] = _NOTHING

    @property
    def trace_id(self) -> str | None:
        context = None if self._server is None else self._server.get_span_context()
        return f"{context.trace_id:032x}" if context is not None and context.is_valid else None

    def read(self, parsed: Message | Refusal | None) -> None:
        try:
            self._read(parsed)
        except Exception as error:  # noqa: BLE001  # a call is not denied because it cannot be traced
            _untraced(error)

    def judged(self, case: Case, verdict: Verdict) -> None:
        try:
            if case.answered is None:
                self._judge(case, verdict)
        except Exception as error:  # noqa: BLE001  # likewise
            _untraced(error)

    def completed(self, completion: Completion) -> None:
        try:
            if self._judged and not self._ended:
                self._complete(completion)
        except Exception as error:  # noqa: BLE001  # likewise
            _untraced(error)

    # --- its beginning

    def _read(self, parsed: Message | Refusal | None) -> None:
        self._describe(parsed)
        trace = None if parsed is None else parsed.trace
        self._server = self._spans.tracer.start_span(
            self._span_name,
            context=_parent(trace),
            kind=SpanKind.SERVER,
            attributes={**self._called, **_transport(self._inbound)},
            links=_links(self._inbound, trace),
            start_time=self._began_ns,
        )
        self._decide = self._spans.tracer.start_span(
            "tallystick.decide", context=set_span_in_context(self._server, Context()), start_time=self._began_ns
        )

    def _describe(self, parsed: Message | Refusal | None) -> None:
        method = None if parsed is None else _name(parsed.method)
        self._common = {"mcp.method.name": method if method in _METHODS else _OTHER} | _transport(self._inbound)
        if parsed is None or method is None:
            return
        target = _name(parsed.name) if method in _TARGETS else None
        self._span_name = method if target is None else f"{method} {target}"
        self._called["mcp.method.name"] = method
        if target is not None:
            self._called[_TARGETS[method]] = target
        if method == "tools/call":
            self._called["gen_ai.operation.name"] = self._common["gen_ai.operation.name"] = "execute_tool"
        if (request_id := _request_id(parsed.request_id)) is not None:
            self._called["jsonrpc.request.id"] = request_id
        if isinstance(parsed, Message) and (version := _name(parsed.protocol_version)) is not None:
            self._called["mcp.protocol.version"] = version
            if version in _REVISIONS:
                self._common["mcp.protocol.version"] = version

    # --- its verdict

    def _judge(self, case: Case, verdict: Verdict) -> None:
        if self._server is None:  # it failed before it was read
            self._read(None)
        assert self._server is not None
        assert self._decide is not None
        self._judged = True
        if case.session is not None:
            self._called["mcp.session.id"] = self._spans.pseudonyms.session(case.session_name)
        if case.tool_digest is not None and "gen_ai.tool.name" in self._called:
            # Only a tool that the server has listed: a caller must not be able to make up attributes of metrics.
            self._common["gen_ai.tool.name"] = self._called["gen_ai.tool.name"]
        said = _decided(case)
        self._server.set_attributes({**self._called, **said})
        self._decide.set_attributes(said)
        self._decide.end()
        if isinstance(verdict, Denied):
            self._deny(case, verdict)
        else:
            self._go_on(verdict)

    def _deny(self, case: Case, denied: Denied) -> None:
        error = _error_of(denied)
        if error is not None:
            self._end_server(str(error.code), error.message)
        else:
            self._end_server("denied" if case.ruling is None else case.ruling.reason)

    def _go_on(self, permitted: Permitted) -> None:
        assert self._server is not None
        self._address = _address_of(permitted)
        self._client_ns = time_ns()
        transport = _transport(self._inbound)
        self._client = self._spans.tracer.start_span(
            self._span_name,
            context=set_span_in_context(self._server, Context()),
            kind=SpanKind.CLIENT,
            attributes={**self._called, **transport, **self._address},
            start_time=self._client_ns,
        )
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, context=set_span_in_context(self._client, Context()))
        self.headers = carrier

    # --- its end

    def _complete(self, completion: Completion) -> None:
        error = _failure(completion)
        if completion.status == "not_forwarded":
            self._client = None  # a span that does not end is never sent: nothing went to the server
        if self._client is not None:
            self._client.set_attributes(_answered(completion))
            _fail(self._client, error)
            self._client.end()
            taken = (time_ns() - self._client_ns) / _SECOND_NS
            attributes = {**self._common, **self._address, **_typed(error)}
            self._spans.client_seconds.record(taken, attributes)
        if self._server is not None:
            self._server.set_attributes({**_answered(completion), "tallystick.outcome": completion.status})
        self._end_server(error)

    def _end_server(self, error: str | None, text: str | None = None) -> None:
        assert self._server is not None
        self._ended = True
        if error is not None and text is not None:
            self._server.set_attribute("rpc.response.status_code", error)
        _fail(self._server, error, text)
        self._server.end()
        taken = (time_ns() - self._began_ns) / _SECOND_NS
        self._spans.server_seconds.record(taken, {**self._common, **_typed(error)})


def _untraced(error: Exception) -> None:
    _LOG.error("call_not_traced", error=type(error).__name__)


def _parent(trace: TraceContext | None) -> Context:
    if trace is None:
        return Context()  # never what happens to be current here
    state = {} if trace.tracestate is None else {"tracestate": trace.tracestate}
    return _W3C.extract({"traceparent": trace.traceparent, **state}, context=Context())


def _links(inbound: Inbound, trace: TraceContext | None) -> list[Link]:
    """Return a link to what the HTTP request says of a trace, if the message itself says something else."""
    line = single_header(inbound.headers, "traceparent")
    ambient = None if line is None else read_trace_context(line)
    if ambient is None or trace is None or ambient.traceparent == trace.traceparent:
        return []
    return [Link(get_current_span(_parent(ambient)).get_span_context())]


def _transport(inbound: Inbound) -> dict[str, AttributeValue]:
    if inbound.transport == "stdio":
        return {"network.transport": "pipe"}
    if inbound.transport == "sdk":  # it may have come by either
        return {}
    return {"network.transport": "tcp", "network.protocol.name": "http"}


def _request_id(request_id: int | str | None) -> str | None:
    """Return an id that says no more than which request it is; a caller may put anything into one."""
    if request_id is None or isinstance(request_id, int):
        return None if request_id is None else str(request_id)
    short = len(request_id) <= _MAX_ID_CHARS and request_id.isascii()
    return request_id if short and request_id.replace("-", "").replace("_", "").isalnum() else None


def _address_of(permitted: Permitted) -> dict[str, AttributeValue]:
    parts = urlsplit(permitted.server.url or "")
    if parts.hostname is None:
        return {}
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname, "server.port": port}


def _decided(case: Case) -> dict[str, AttributeValue]:
    """Return what the decision record says in the open."""
    ruling = case.ruling
    said: dict[str, AttributeValue] = {"tallystick.decision_id": case.decision_id}
    if case.server is not None:
        said["tallystick.server"] = case.server.name
    if case.identity is not None:
        said["tallystick.agent"] = case.identity.agent
    if ruling is not None:
        said |= {
            "tallystick.decision": ruling.decision,
            "tallystick.enforcement": ruling.enforcement,
            "tallystick.mode": "observe" if ruling.observed else "enforce",
            "tallystick.reason": ruling.reason,
        }
    if case.bundle is not None:
        said["tallystick.bundle_revision"] = case.bundle.revision
    if case.evaluation is not None:
        said["tallystick.evaluation_us"] = case.evaluation.duration_us
        if case.evaluation.decision.failed_condition is not None:
            said["tallystick.rule"] = case.evaluation.decision.failed_condition
    return said


def _error_of(denied: Denied) -> _ErrorObject | None:
    try:
        return _READ_ERROR.decode(denied.reply.body).error
    except msgspec.DecodeError:  # one without a JSON-RPC answer
        return None


def _failure(completion: Completion) -> str | None:
    if completion.error_code is not None:
        return str(completion.error_code)
    if completion.tool_error:
        return "tool_error"
    return None if completion.status == "completed" else completion.reason or completion.status


def _answered(completion: Completion) -> dict[str, AttributeValue]:
    return {} if completion.error_code is None else {"rpc.response.status_code": str(completion.error_code)}


def _typed(error: str | None) -> dict[str, AttributeValue]:
    """Return the error for a metric; a code that JSON-RPC does not reserve is whatever a server made up."""
    if error is None:
        return {}
    made_up = error.lstrip("-").isdigit() and not _RESERVED_CODES[0] <= int(error) <= _RESERVED_CODES[1]
    return {"error.type": _OTHER if made_up else error}


def _fail(span: Span, error: str | None, text: str | None = None) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR, text)
