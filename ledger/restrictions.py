"""What is stopped, and whether a call is: the set of restrictions that is in force everywhere at once.

Pure. A *restriction* stops calls before any policy is asked: a containment that somebody ordered, or the block that a
kill has left behind. How restrictions come about and end is in `ledger.containments`; that a set is in force at every
enforcement point is the part of `enforcement.restrictions`.

The set travels as one document, the same bytes from every process of a service::

    {"format":"tallystick.restrictions/1","version":4711,"lifted":["019a…"],
     "restrictions":[{"agent":"Finance-Bot","id":"019a…","kind":"containment","scope":"agent",
                      "since_ms":1763546400001,"until_ms":1763560800000}]}

INVARIANT: a set only stops calls; there is no restriction that lets a call pass. What this release does not know of a
document makes all of it unreadable: whoever holds an older set goes on with that one and says that he does.

INVARIANT: a set is bounded. Beyond `MAX_RESTRICTIONS` it stops more than was asked for, never less (`bounded`).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from ledger import body_fields
from ledger.canonical import canonical_bytes, parse_json
from ledger.errors import MalformedError

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "MAX_LIFTED",
    "MAX_RESTRICTIONS",
    "NO_VERSION",
    "Restriction",
    "RestrictionSet",
    "Scope",
    "bounded",
    "parse_restrictions",
]

MAX_RESTRICTIONS: Final = 4096
MAX_LIFTED: Final = 1024
"""Latest released kills that a set names, so that the enforcement points that decided them let go as well."""
MAX_DOCUMENT_BYTES: Final = 4 << 20
NO_VERSION: Final = -1
"""The version of a set before the log said anything about restrictions."""
_FORMAT: Final = "tallystick.restrictions/1"

Scope: TypeAlias = Literal["all", "agent", "session", "server", "tool", "principal"]


class Restriction(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"restriction_id": "id"},
):
    """One thing that is stopped.

    Attributes:
        restriction_id: Id of the containment, or of the decision that killed.
        kind: Which of the two.
        scope: What is stopped: everything; an agent; a session; a server; a tool of a server; a principal, that is an
            agent on behalf of one user or of none.
        since_ms: Since when, POSIX milliseconds.
        agent: The agent of an agent or principal; of a session, whose it is.
        user: Pseudonym of a principal's user; None for an agent on nobody's behalf.
        session: Pseudonym of the session.
        server: The server, of a tool as well.
        tool: The tool.
        key_id: Which key made the pseudonyms.
        until_ms: When it ends by itself; None if it does not.
    """

    restriction_id: body_fields.Uuid
    kind: Literal["containment", "kill"]
    scope: Scope
    since_ms: body_fields.Count
    agent: body_fields.Name | None = None
    user: body_fields.Pseudonym | None = None
    session: body_fields.Pseudonym | None = None
    server: body_fields.Name | None = None
    tool: body_fields.Name | None = None
    key_id: body_fields.Hex8 | None = None
    until_ms: body_fields.Count | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["tallystick.restrictions/1"]
    version: Annotated[int, msgspec.Meta(ge=NO_VERSION, le=2**53 - 1)]
    restrictions: Annotated[tuple[Restriction, ...], msgspec.Meta(max_length=MAX_RESTRICTIONS)]
    lifted: Annotated[tuple[body_fields.Uuid, ...], msgspec.Meta(max_length=MAX_LIFTED)]


class RestrictionSet:
    """Everything that is stopped at one moment. Immutable.

    Attributes:
        version: Leaf index of the record that made it what it is; `NO_VERSION` before the first.
        restrictions: All of them, oldest first.
        lifted: The latest kills that were released, by decision id, oldest first.
        document: Its bytes.
        digest: SHA-256 of these, hexadecimal.
    """

    __slots__ = (
        "_agents",
        "_all",
        "_servers",
        "_sessions",
        "_tools",
        "digest",
        "document",
        "lifted",
        "restrictions",
        "version",
    )

    def __init__(
        self, restrictions: Sequence[Restriction] = (), *, version: int = NO_VERSION, lifted: Sequence[str] = ()
    ) -> None:
        """Take restrictions, at most `MAX_RESTRICTIONS` of them, and ids, at most `MAX_LIFTED`."""
        self.version = version
        self.restrictions = tuple(restrictions)
        self.lifted = tuple(lifted)
        self._all: list[Restriction] = []
        self._agents: defaultdict[str, list[Restriction]] = defaultdict(list)
        self._sessions: list[Restriction] = []
        self._servers: defaultdict[str, list[Restriction]] = defaultdict(list)
        self._tools: defaultdict[tuple[str, str], list[Restriction]] = defaultdict(list)
        for restriction in self.restrictions:
            self._index(restriction)
        document = {
            "format": _FORMAT,
            "version": version,
            "restrictions": msgspec.to_builtins(self.restrictions),
            "lifted": list(self.lifted),
        }
        self.document = canonical_bytes(document)
        self.digest = hashlib.sha256(self.document).hexdigest()

    def _index(self, restriction: Restriction) -> None:
        scope, agent, server, tool = restriction.scope, restriction.agent, restriction.server, restriction.tool
        if scope in ("agent", "principal") and agent is not None:
            self._agents[agent].append(restriction)
        elif scope == "session" and restriction.session is not None:
            self._sessions.append(restriction)
        elif scope == "tool" and server is not None and tool is not None:
            self._tools[server, tool].append(restriction)
        elif scope == "server" and server is not None:
            self._servers[server].append(restriction)
        elif scope == "all":
            self._all.append(restriction)
        else:
            raise MalformedError(f"the restriction {restriction.restriction_id} does not name what it stops")

    def __bool__(self) -> bool:
        """Whether anything is stopped."""
        return bool(self.restrictions)

    def covering(
        self,
        *,
        agent: str,
        server: str | None,
        tool: str | None,
        user: Callable[[], str | None],
        session: Callable[[], str],
        key_id: str,
    ) -> Iterator[Restriction]:
        """Yield what stops a call, the narrowest to look up first.

        A restriction that names a pseudonym of another key may or may not mean this caller: nobody here can tell. It
        stops the whole agent then, rather than nobody.

        Args:
            agent: Who calls.
            server: Which server is called, if it is known.
            tool: Which of its tools, if it is a call of one.
            user: Returns the pseudonym of the caller's user; only asked if it matters.
            session: Returns the pseudonym of the call's session; only asked if it matters.
            key_id: Which key makes these pseudonyms.
        """
        yield from self._all
        for restriction in self._agents.get(agent, ()):
            if restriction.scope == "agent" or _is_user(restriction, user, key_id):
                yield restriction
        for restriction in self._sessions:
            known = restriction.key_id in (None, key_id)
            if restriction.session == session() if known else restriction.agent in (None, agent):
                yield restriction
        if server is not None:
            tools = self._tools.get((server, tool), ()) if tool is not None else ()
            yield from chain(self._servers.get(server, ()), tools)

    def of_tool(self, server: str, tool: str) -> Sequence[Restriction]:
        """Return what stops this one tool of a server, whoever calls."""
        return self._tools.get((server, tool), ())


def _is_user(restriction: Restriction, user: Callable[[], str | None], key_id: str) -> bool:
    """Whether a principal's restriction is, or may be, about this user."""
    if restriction.user is not None and restriction.key_id not in (None, key_id):
        return user() is not None
    return restriction.user == user()


def bounded(restrictions: Iterable[Restriction]) -> tuple[Restriction, ...]:
    """Return restrictions that stop at least the same, at most `MAX_RESTRICTIONS` of them.

    Of the agent with the most principals all of them become one, which stops the agent whole; and so on. If even that
    does not do, everything is stopped.
    """
    found = list(restrictions)
    while len(found) > MAX_RESTRICTIONS:
        principals = Counter(one.agent for one in found if one.scope == "principal")
        ((agent, count),) = principals.most_common(1) or [(None, 0)]
        if agent is None or count < 2:  # noqa: PLR2004  # one is one already
            whole = msgspec.structs.replace(
                found[0],
                scope="all",
                agent=None,
                user=None,
                session=None,
                server=None,
                tool=None,
                key_id=None,
                until_ms=None,
            )
            return (whole,)
        first = next(one for one in found if one.scope == "principal" and one.agent == agent)
        merged = msgspec.structs.replace(first, scope="agent", user=None, key_id=None)
        kept = (one for one in found if one is first or one.scope != "principal" or one.agent != agent)
        found = [merged if one is first else one for one in kept]
    return tuple(found)


def parse_restrictions(data: bytes) -> RestrictionSet:
    """Read a document; the inverse of `RestrictionSet.document`.

    Raises:
        MalformedError: It is none, is too long, or is not spelt as it would be written here.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MalformedError(f"a set of restrictions has at most {MAX_DOCUMENT_BYTES} bytes")
    try:
        read = msgspec.convert(parse_json(data), _Document)
    except msgspec.ValidationError:
        raise MalformedError("not a set of restrictions that this release can read") from None
    found = RestrictionSet(read.restrictions, version=read.version, lifted=read.lifted)
    if found.document != data:
        raise MalformedError("the set of restrictions is not in canonical form")
    return found
