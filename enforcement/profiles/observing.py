"""One call, reduced to what a profile may keep: names that are public, shapes, buckets, and keyed digests.

Pure. Of arguments no value is kept: which members there are and of what type, under the tenant's key, because a
member's name may itself be personal (an object keyed by mail address); and a size in powers of two. What a call was
about is a keyed fingerprint, to tell two apart, and is forgotten with the hour (`enforcement.profiles.tallies`).

INVARIANT 6: nothing that this returns, and so nothing that a profile stores or a record says, holds an argument.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from enforcement.facts import Pseudonyms
from enforcement.modes import recorded_tool
from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError
from policies.model import DecisionRequest

__all__ = ["MAX_FEATURES", "MAX_SHAPED_CHARS", "SIZE_BUCKETS", "Observation", "observe", "shape_of", "size_bucket"]

SIZE_BUCKETS: Final = 24
"""Sizes of arguments: below 2, 4, 8 … characters; the last takes all above 4 million."""

MAX_FEATURES: Final = 64
"""Members of one call's arguments that its shape tells apart; beyond, the shape says ``more``."""

MAX_SHAPED_CHARS: Final = 1 << 16
"""Longest arguments that are looked into. Of longer ones the shape is ``long``: reading them costs what a call may
not wait for, and that an agent begins to send such is itself a departure."""

_MAX_DEPTH: Final = 4
_NAMED: Final = frozenset({"tools/call", "prompts/get"})
"""Methods whose names are public; a resource's URI is not."""
_KEY_CONTEXT: Final = b"tallystick/profile-shape/v1\n"
_DIGEST_CHARS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a profile learns of one call.

    Attributes:
        decision_id: Record id of its decision.
        agent: Whose call.
        now_ms: When, POSIX milliseconds.
        day: The local date.
        hour: Which of the 48 hours of a week that are told apart: 0 to 23 of a working day, 24 to 47 of a weekend.
        session: Pseudonym of its session.
        server: Which server.
        tool: ``server/tool`` of a tool or prompt, ``server/method`` of anything else.
        features: Keyed digests of the members of its arguments with their types, sorted.
        size: Bucket of their length.
        target: Keyed digest of the tool with its arguments: two calls of one target are one target.
        reads: It can bring in what must not get out.
        sends: It can take something out.
    """

    decision_id: str
    agent: str
    now_ms: int
    day: str
    hour: int
    session: str
    server: str
    tool: str
    features: tuple[str, ...]
    size: int
    target: str
    reads: bool = False
    sends: bool = False


def size_bucket(length: int) -> int:
    """Return the bucket of a length: its number of binary digits, at most the last."""
    return min(length.bit_length(), SIZE_BUCKETS - 1)


def shape_of(arguments: str, key: bytes) -> tuple[str, ...]:
    """Return the shape of arguments: a keyed digest for each member's path and type.

    Args:
        arguments: JSON text.
        key: The tenant's pseudonym key.
    """
    if len(arguments) > MAX_SHAPED_CHARS:
        return ("long",)
    try:
        value = parse_json(arguments.encode(errors="surrogatepass"))
    except MalformedError:
        return ("unreadable",)
    paths = sorted(set(_paths(value, "", 0)))
    shown = tuple(sorted(_keyed(key, path) for path in paths[:MAX_FEATURES]))
    return (*shown, "more") if len(paths) > MAX_FEATURES else shown


def _paths(value: JSONValue, path: str, depth: int) -> Iterable[str]:
    """Yield path and type of each member; the entries of a list are one member."""
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        for name, member in value.items():
            yield from _paths(member, f"{path}\n{name}", depth + 1)
        if not value and path:
            yield f"{path}\nobject"
    elif isinstance(value, list) and depth < _MAX_DEPTH:
        for member in value[:MAX_FEATURES]:
            yield from _paths(member, f"{path}\n[]", depth + 1)
        if not value:
            yield f"{path}\nlist"
    else:
        yield f"{path}\t{_type(value)}"


def _type(value: JSONValue) -> str:
    if isinstance(value, bool):
        return "yes or no"
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text"
    return "structure" if isinstance(value, dict | list) else "number"


def _keyed(key: bytes, text: str) -> str:
    message = _KEY_CONTEXT + text.encode(errors="surrogatepass")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:_DIGEST_CHARS]


def observe(
    decision_id: str,
    request: DecisionRequest,
    pseudonyms: Pseudonyms,
    *,
    read_tags: Sequence[str] = (),
    send_tags: Sequence[str] = (),
) -> Observation:
    """Return what a profile may learn of a call.

    Args:
        decision_id: Record id of its decision.
        request: What the policy is asked.
        pseudonyms: The tenant's.
        read_tags: A call with one of these tags reads what must not get out.
        send_tags: A call with one of these can take something out.
    """
    resource, time = request.resource, request.time
    named = recorded_tool(resource.name) if request.action in _NAMED else None
    tool = f"{resource.server}/{named or request.action}"
    tags = set(resource.tags)
    weekend = time.weekday > 5  # noqa: PLR2004  # Saturday and Sunday
    return Observation(
        decision_id=decision_id,
        agent=request.principal.agent,
        now_ms=time.now_ms,
        day=time.local_date,
        hour=time.hour + 24 * weekend,
        session=pseudonyms.session(request.state.session),
        server=resource.server,
        tool=tool,
        features=shape_of(request.arguments, pseudonyms.key),
        size=size_bucket(len(request.arguments)),
        target=_keyed(pseudonyms.key, f"{tool}\n{resource.name}\n{request.arguments}"),
        reads=not tags.isdisjoint(read_tags),
        sends=not tags.isdisjoint(send_tags),
    )
