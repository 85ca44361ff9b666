"""The decision log of somebody's OPA, read: an upload's bytes, its events, and what each of them says.

Pure. OPA posts a JSON array, compressed with gzip. The array is taken apart first, so that an event which cannot be
read stops none of the others: it has a `fault`, and is kept as it is.

An event is an OPA's word. Numbers are never rounded: what is kept are slices of what was received, and events are
compared by their values as exactly written (`Event.sha256`), so that an OPA which spells one anew when it sends it
again sends the same one.

Source: Open Policy Agent, "Decision Logs" and "Status"; release 1.22.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

import msgspec

from ledger.body_fields import Count, Hex16, Name
from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError

__all__ = [
    "MAX_EVENTS",
    "PAYLOADS",
    "Event",
    "Loss",
    "TooLargeError",
    "inflate",
    "parse_event",
    "parse_loss",
    "split",
]

MAX_EVENTS: Final = 20_000
"""Events of one upload."""
PAYLOADS: Final = ("input", "result", "nd_builtin_cache")
"""Members that are payloads of their own."""

Answer: TypeAlias = Literal["true", "false", "other", "absent"]

_MAX_NAMES: Final = 64
_MAX_COUNT: Final = 2**53 - 1
_NS_PER_US: Final = 1000
_GZIP: Final = 16 + zlib.MAX_WBITS
_EVALUATION: Final = "timer_rego_query_eval_ns"
_DROPPED: Final = {
    "rate_limited": ("counter_decision_logs_dropped_rate_limit_exceeded",),
    "buffer_full": (
        "counter_decision_logs_dropped_buffer_size_limit_exceeded",
        "counter_decision_logs_dropped_buffer_size_limit_bytes_exceeded",
    ),
    "not_encoded": ("counter_decision_logs_encoding_failure",),
    "nd_caches": ("counter_decision_logs_nd_builtin_cache_dropped",),
}


class TooLargeError(MalformedError):
    """An upload is larger than it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event; the fields are those of `ledger.bodies.OPADecision`, before anything is named or committed to.

    Attributes:
        sha256: SHA-256 over its values; over its bytes where it cannot be read.
        fault: Why it cannot be read.
        instance: The OPA's own id.
        decision_id: The OPA's decision id.
        version: The OPA's version.
        path: What was asked for.
        bundles: Names of its bundles.
        revisions: Their revisions.
        unrevised: A bundle has no revision that is a name.
        answer: What was answered.
        error: The evaluation failed.
        decided_ms: When.
        evaluation_us: How long it took.
        request_number: Number of the request.
        trace_id: W3C trace id.
        erased: Values taken out.
        masked: Values replaced.
        withheld: Of which payloads.
        user: The user, in an input of our own form.
        session: The session, in an input of our own form.
        address: Whoever asked.
        payloads: Bytes of the payloads that are there, as received.
        rest: What they leave of the event; the whole event where it cannot be read.
    """

    sha256: bytes
    rest: bytes
    fault: str | None = None
    instance: str | None = None
    decision_id: str | None = None
    version: str | None = None
    path: str | None = None
    bundles: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ()
    unrevised: bool = False
    answer: Answer = "absent"
    error: bool = False
    decided_ms: int | None = None
    evaluation_us: int = 0
    request_number: int | None = None
    trace_id: str | None = None
    erased: int = 0
    masked: int = 0
    withheld: tuple[str, ...] = ()
    user: str | None = None
    session: str | None = None
    address: str | None = None
    payloads: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What an OPA counted as lost since its start; see `ledger.bodies.OPALoss`."""

    instance: str
    version: str | None
    rate_limited: int
    buffer_full: int
    not_encoded: int
    nd_caches: int

    @property
    def counts(self) -> tuple[int, ...]:
        """The counters, in order."""
        return (self.rate_limited, self.buffer_full, self.not_encoded, self.nd_caches)


def inflate(body: bytes, encoding: str, *, limit_bytes: int) -> bytes:
    """Return an upload's JSON.

    Args:
        body: As received.
        encoding: The content encoding: ``gzip`` or nothing.
        limit_bytes: The largest result; no more is ever unpacked.

    Raises:
        TooLargeError: It is larger.
        MalformedError: Another encoding, or no gzip, or not all of one.
    """
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise MalformedError("the content encoding must be gzip, or none")
    reader = zlib.decompressobj(_GZIP)
    try:
        data = reader.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise MalformedError("the body is not gzip") from error
    if len(data) > limit_bytes:
        raise TooLargeError(f"an upload has at most {limit_bytes} bytes, uncompressed")
    if not reader.eof or reader.unused_data:
        raise MalformedError("the body is not one whole gzip member")
    return data


_EVENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def split(data: bytes) -> list[bytes]:
    """Return the events of an upload, each as it was received.

    Raises:
        MalformedError: Not a JSON array.
        TooLargeError: Too many events.
    """
    try:
        events = _EVENTS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("a decision log is uploaded as a JSON array of events") from error
    if len(events) > MAX_EVENTS:
        raise TooLargeError(f"an upload has at most {MAX_EVENTS} events, not {len(events)}")
    return [bytes(event) for event in events]


def _name(value: object) -> str | None:
    try:
        return msgspec.convert(value, Name)
    except msgspec.ValidationError:
        return None


def _count(value: object) -> int | None:
    try:
        return msgspec.convert(value, Count)
    except msgspec.ValidationError:
        return None


def _spelt(value: JSONValue) -> bytes:
    """Return a value in one spelling, numbers as exactly as they were written."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_decimal)
    return text.encode()


def _decimal(value: object) -> dict[str, str]:
    if not isinstance(value, Decimal):
        raise TypeError("not a JSON value")
    return {"number": str(value)}


def _unreadable(raw: bytes, fault: str) -> Event:
    return Event(sha256=hashlib.sha256(raw).digest(), rest=raw, fault=fault, payloads={})


def parse_event(raw: bytes) -> Event:
    """Read one event; what is wrong with it is its `Event.fault`."""
    try:
        value = parse_json(raw)
    except MalformedError:
        return _unreadable(raw, "not_strict_json")
    if not isinstance(value, dict):
        return _unreadable(raw, "not_an_object")
    labels = value.get("labels")
    instance = _name(labels.get("id")) if isinstance(labels, dict) else None
    decision_id = _name(value.get("decision_id"))
    if instance is None or decision_id is None:
        return _unreadable(raw, "no_instance" if instance is None else "no_decision_id")
    return _event(raw, value, instance, decision_id)


def _event(raw: bytes, value: dict[str, JSONValue], instance: str, decision_id: str) -> Event:
    members = _MEMBERS.decode(raw)
    labels = value["labels"]
    assert isinstance(labels, dict)
    names, revisions, unrevised = _bundles(value)
    erased, masked = _pointers(value.get("erased")), _pointers(value.get("masked"))
    user, session = _subjects(value.get("input"))
    metrics = value.get("metrics")
    took = _count(metrics.get(_EVALUATION)) if isinstance(metrics, dict) else None
    return Event(
        sha256=hashlib.sha256(_spelt(value)).digest(),
        rest=msgspec.json.encode({name: raw for name, raw in members.items() if name not in PAYLOADS}),
        instance=instance,
        decision_id=decision_id,
        version=_name(labels.get("version")),
        path=_name(value.get("path")),
        bundles=names,
        revisions=revisions,
        unrevised=unrevised,
        answer=_answer(value),
        error=value.get("error") is not None,
        decided_ms=_moment(value.get("timestamp")),
        evaluation_us=(took or 0) // _NS_PER_US,
        request_number=_count(value.get("req_id")),
        trace_id=_trace(value.get("trace_id")),
        erased=len(erased),
        masked=len(masked),
        withheld=tuple(sorted({part for pointer in (*erased, *masked) for part in _parts(pointer)})),
        user=user,
        session=session,
        address=_address(value.get("requested_by")),
        payloads={name: bytes(members[name]) for name in PAYLOADS if name in members},
    )


def _bundles(value: Mapping[str, JSONValue]) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return names and revisions of an event's bundles, and whether one has no revision that could be looked up."""
    found = value.get("bundles")
    if not isinstance(found, dict) or not found:
        return (), (), True
    names = {name for name in map(_name, found) if name is not None}
    revisions = [_name(item.get("revision")) if isinstance(item, dict) else None for item in found.values()]
    known = {revision for revision in revisions if revision is not None}
    unrevised = None in revisions or len(names) > _MAX_NAMES or len(known) > _MAX_NAMES
    return tuple(sorted(names)[:_MAX_NAMES]), tuple(sorted(known)[:_MAX_NAMES]), unrevised


def _answer(value: Mapping[str, JSONValue]) -> Answer:
    if "result" not in value:
        return "absent"
    result = value["result"]
    if result is True:
        return "true"
    return "false" if result is False else "other"


def _pointers(value: JSONValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _parts(pointer: str) -> Iterable[str]:
    """Return the payload that a JSON pointer leads into, if it is one."""
    part = pointer.removeprefix("/").partition("/")[0]
    return (part,) if part in PAYLOADS else ()


def _subjects(given: JSONValue) -> tuple[str | None, str | None]:
    """Return user and session of an input of our own form (`policies.engines`), so that they can be erased."""
    found: list[str | None] = []
    for member, name in (("principal", "user"), ("state", "session")):
        part = given.get(member) if isinstance(given, dict) else None
        value = part.get(name) if isinstance(part, dict) else None
        found.append(value if isinstance(value, str) and value else None)
    return found[0], found[1]


def _moment(value: JSONValue) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        milliseconds = -1 if moment.tzinfo is None else int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return milliseconds if milliseconds >= 0 else None


def _trace(value: JSONValue) -> str | None:
    try:
        return msgspec.convert(value, Hex16)
    except msgspec.ValidationError:
        return None


def _address(value: JSONValue) -> str | None:
    """Return the address of ``host:port``, in one spelling."""
    if not isinstance(value, str):
        return None
    host = value.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


class _StatusDecisionLogs(msgspec.Struct, frozen=True):
    metrics: dict[str, Any] = {}


class _StatusLabels(msgspec.Struct, frozen=True):
    id: Name
    version: str = ""


class _Status(msgspec.Struct, frozen=True):
    labels: _StatusLabels
    decision_logs: _StatusDecisionLogs | None = None


_STATUS: Final = msgspec.json.Decoder(_Status)


def parse_loss(data: bytes) -> Loss | None:
    """Read an OPA's status report; None if it counts nothing as lost.

    Raises:
        MalformedError: Not a status report.
    """
    try:
        status = _STATUS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("not a status report of an OPA") from error
    metrics = {} if status.decision_logs is None else status.decision_logs.metrics
    counts = {
        name: min(sum(_count(metrics.get(counter)) or 0 for counter in counters), _MAX_COUNT)
        for name, counters in _DROPPED.items()
    }
    if not any(counts.values()):
        return None
    return Loss(instance=status.labels.id, version=_name(status.labels.version), **counts)
