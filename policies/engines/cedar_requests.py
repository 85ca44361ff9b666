"""From a `DecisionRequest` to a Cedar request: principal, action, resource, entities, context.

`policies.engines.cedar` documents the mapping for those who write policies; this module does it.

INVARIANT 8: the Cedar request is a function of bundle and recorded request alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeAlias

import cedarpy
import msgspec
from msgspec import UNSET

from ledger.canonical import parse_json
from ledger.errors import MalformedError, PolicySyntaxError
from policies.boundaries import BoundaryFacts
from policies.bundles import Bundle
from policies.model import DecisionRequest, SessionState
from policies.parameters import FixedDecimal, ParameterValue
from policies.signals import signal_facts

__all__ = ["MAX_ENTITIES", "EntityBase", "cedar_context", "cedar_request", "read_entities", "resource_uid"]

Uid: TypeAlias = tuple[str, str]
"""Entity type and id."""

_MAX_BASES: Final = 64
_MAX_HANDLES: Final = 1024
_MAX_KEPT_ENTITIES: Final = 100_000
"""Entities in all handles that are kept for further requests of the same agent, roles, server, tool and tags."""
MAX_ENTITIES: Final = 5000
"""Static entities of one bundle; each costs every decision about a microsecond."""


class _UidDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Annotated[str, msgspec.Meta(min_length=1)]
    id: str


class _Entity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    uid: _UidDocument
    attrs: dict[str, Any] = {}
    parents: tuple[_UidDocument, ...] = ()
    tags: dict[str, Any] = {}


def resource_uid(request: DecisionRequest) -> Uid:
    """Return the Cedar resource of a request: a tool of a server, or the server itself."""
    server, name = request.resource.server, request.resource.name
    return ("Server", server) if name is None else ("Tool", f"{server}/{name}")


def _own_attributes(uid: Uid) -> dict[str, Any]:
    """Return the attributes that we give to an entity of a request, by its uid alone."""
    kind, identity = uid
    if kind == "Tool":
        server, _, name = identity.partition("/")
        return {"name": name, "server": {"__entity": {"type": "Server", "id": server}}}
    return {"name": identity}


def _document(uid: Uid, attrs: Mapping[str, Any], parents: Iterable[Uid], tags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uid": {"type": uid[0], "id": uid[1]},
        "attrs": dict(attrs),
        "parents": [{"type": kind, "id": identity} for kind, identity in dict.fromkeys(parents)],
        "tags": dict(tags),
    }


_OWN_TYPES: Final = frozenset({"Agent", "Server", "Tool"})


def _completed(path: str, entity: _Entity) -> dict[str, Any]:
    """Return a static entity with what every request would say of it as well."""
    uid = (entity.uid.type, entity.uid.id)
    parents = [(parent.type, parent.id) for parent in entity.parents]
    if uid[0] not in _OWN_TYPES:
        return _document(uid, entity.attrs, parents, entity.tags)
    if uid[0] == "Tool":
        server, slash, _ = uid[1].partition("/")
        if not slash:
            raise PolicySyntaxError(f'{path}: a tool is named "<server>/<tool>"')
        parents.insert(0, ("Server", server))
    own = _own_attributes(uid)
    for name in own.keys() & entity.attrs.keys():
        if entity.attrs[name] != own[name]:
            raise PolicySyntaxError(f"{path}: the attribute {name} of a {uid[0]} follows from its id")
    return _document(uid, {**entity.attrs, **own}, parents, entity.tags)


class EntityBase:
    """The static entities of a bundle, and the entities of one request among them."""

    def __init__(self, documents: Mapping[Uid, dict[str, Any]], schema: cedarpy.Schema) -> None:
        """Take the static entities; they are valid under the schema, together and each alone.

        Args:
            documents: Cedar's JSON form of each entity, by uid.
            schema: The bundle's schema.
        """
        self._schema = schema
        self._static = dict(documents)
        # Handles of the static entities without those that a request brings itself, by which those are. Whatever
        # thread comes second does its work again; the dictionary stays whole.
        self._bases: dict[frozenset[Uid], cedarpy.Entities] = {}
        # The same, with the entities of a request, by what of a request they depend on.
        self._handles: dict[tuple[object, ...], cedarpy.Entities] = {}
        self._max_handles = min(_MAX_HANDLES, 1 + _MAX_KEPT_ENTITIES // (len(self._static) + 1))

    def _base_without(self, uids: frozenset[Uid]) -> cedarpy.Entities:
        handle = self._bases.get(uids)
        if handle is None:
            rest = [document for uid, document in self._static.items() if uid not in uids]
            handle = cedarpy.Entities.from_json_str(json.dumps(rest), self._schema)
            if len(self._bases) >= _MAX_BASES:
                self._bases.clear()
            self._bases[uids] = handle
        return handle

    def _merged(self, uid: Uid, parents: list[Uid]) -> dict[str, Any]:
        static = self._static.get(uid)
        if static is None:
            return _document(uid, _own_attributes(uid), parents, {})
        parents += [(parent["type"], parent["id"]) for parent in static["parents"]]
        return _document(uid, static["attrs"], parents, static["tags"])

    def with_request(self, request: DecisionRequest) -> cedarpy.Entities:
        """Return the bundle's entities together with those of a request.

        Raises:
            ValueError: The entities of the request do not fit the schema.
        """
        principal, resource = request.principal, request.resource
        key = (principal.agent, principal.roles, resource.server, resource.name, resource.tags)
        handle = self._handles.get(key)
        if handle is None:
            handle = self._made_with(request)
            if len(self._handles) >= self._max_handles:
                self._handles.clear()  # a stranger can name any number of tools
            self._handles[key] = handle
        return handle

    def _made_with(self, request: DecisionRequest) -> cedarpy.Entities:
        server = ("Server", request.resource.server)
        documents = [
            self._merged(("Agent", request.principal.agent), [("Role", role) for role in request.principal.roles]),
        ]
        tags = [("Tag", tag) for tag in request.resource.tags]
        if request.resource.name is None:
            documents.append(self._merged(server, tags))
        else:
            documents.append(self._merged(server, []))
            documents.append(self._merged(resource_uid(request), [server, *tags]))
        # A static entity of which the request says nothing new stays where it is: a bundle may describe thousands of
        # tools, and to take one of them out of the base makes another base.
        documents = [document for document in documents if not self._says_nothing_new(document)]
        uids = {(document["uid"]["type"], document["uid"]["id"]) for document in documents}
        base = self._base_without(frozenset(uids & self._static.keys()))
        return base.with_added_json_str(json.dumps(documents), self._schema)

    def resource_ancestors(self, request: DecisionRequest) -> frozenset[Uid]:
        """Return what the resource of a request is or is in: itself, its server, its tags, and what those are in."""
        resource = resource_uid(request)
        found = {resource, ("Server", request.resource.server), *(("Tag", tag) for tag in request.resource.tags)}
        return frozenset(self._with_static_parents(found))

    def _with_static_parents(self, found: set[Uid]) -> set[Uid]:
        left = list(found)
        while left:
            static = self._static.get(left.pop())
            for parent in () if static is None else static["parents"]:
                uid = (parent["type"], parent["id"])
                if uid not in found:
                    found.add(uid)
                    left.append(uid)
        return found

    def _says_nothing_new(self, document: Mapping[str, Any]) -> bool:
        static = self._static.get((document["uid"]["type"], document["uid"]["id"]))
        if static is None:
            return False
        known = {(parent["type"], parent["id"]) for parent in static["parents"]}
        return known.issuperset((parent["type"], parent["id"]) for parent in document["parents"])

    def actions(self) -> frozenset[str]:
        """Return the ids of the actions that the schema declares."""
        return frozenset(identity for kind, identity in self._action_parents() if kind == "Action")

    def action_ancestors(self) -> dict[Uid, frozenset[Uid]]:
        """Return the groups that each action of the schema is in, directly or not."""
        parents = self._action_parents()
        found: dict[Uid, frozenset[Uid]] = {}
        for action in parents:
            above: set[Uid] = set()
            left = [action]
            while left:
                fresh = parents.get(left.pop(), frozenset()) - above
                above |= fresh
                left += fresh
            found[action] = frozenset(above)
        return found

    def _action_parents(self) -> dict[Uid, frozenset[Uid]]:
        entities = json.loads(str(cedarpy.Entities.from_json_str("[]", self._schema)))
        return {
            (item["uid"]["type"], item["uid"]["id"]): frozenset(
                (parent["type"], parent["id"]) for parent in item["parents"]
            )
            for item in entities
        }


def _documents(path: str, data: bytes) -> dict[Uid, dict[str, Any]]:
    """Return the static entities of a bundle, completed, by uid."""
    try:
        entities = msgspec.convert(parse_json(data), list[_Entity])
    except (MalformedError, msgspec.ValidationError) as error:
        raise PolicySyntaxError(f"{path}: {error}") from error
    if len(entities) > MAX_ENTITIES:
        raise PolicySyntaxError(f"{path}: at most {MAX_ENTITIES} entities, not {len(entities)}")
    documents: dict[Uid, dict[str, Any]] = {}
    for entity in entities:
        uid = (entity.uid.type, entity.uid.id)
        if uid in documents:
            raise PolicySyntaxError(f"{path}: the entity {_shown(uid)} is there twice")
        if uid[0].split("::")[-1] == "Action":
            raise PolicySyntaxError(f"{path}: actions are declared in the schema")
        documents[uid] = _completed(path, entity)
    return documents


def _shown(uid: Uid) -> str:
    return f"{uid[0]}::{json.dumps(uid[1])}"


def read_entities(bundle: Bundle, schema: cedarpy.Schema) -> EntityBase:
    """Read and check the bundle's static entities; a bundle without any has none.

    Raises:
        PolicySyntaxError: Not a list of entities, two of one uid, or not valid under the schema.
    """
    path = bundle.manifest.entities
    if path is None:
        return EntityBase({}, schema)
    documents = _documents(path, bundle.files[path])
    # One by one first: cedarpy does not say which entity it refuses.
    for uid, document in documents.items():
        try:
            cedarpy.Entities.from_json_str(json.dumps([document]), schema)
        except ValueError as error:
            raise PolicySyntaxError(f"{path}: the entity {_shown(uid)}: {error}") from error
        except TypeError as error:
            told = "Cedar has whole numbers only; a decimal is written as text"
            raise PolicySyntaxError(f"{path}: the entity {_shown(uid)}: {told}") from error
    try:
        cedarpy.Entities.from_json_str(json.dumps(list(documents.values())), schema)
    except ValueError as error:
        raise PolicySyntaxError(f"{path}: {error}") from error
    return EntityBase(documents, schema)


def _cedar_value(value: ParameterValue) -> object:
    if isinstance(value, FixedDecimal):
        return {"__extn": {"fn": "decimal", "arg": str(value)}}
    return value


def cedar_context(
    request: DecisionRequest,
    arguments: Mapping[str, ParameterValue],
    windows: Mapping[str, ParameterValue],
    boundary: BoundaryFacts | None = None,
    *,
    signalled: bool = False,
) -> dict[str, object]:
    """Return the context of a request.

    Args:
        request: The request.
        arguments: Its parameters as the bundle declares them.
        windows: Its behaviour windows as the bundle declares them.
        boundary: What the bundle's boundaries say of it; None if it has none.
        signalled: Whether the bundle's schema declares signals for its action, so that those which it holds are there.
    """
    principal, time = request.principal, request.time
    identity: dict[str, object] = {"authn": principal.authn, "mfa": principal.mfa, "roles": list(principal.roles)}
    if principal.user is not None:
        identity["user"] = principal.user
    described: dict[str, object] = {}
    if boundary is not None:
        described["boundary"] = {"known": boundary.known, "drift": list(boundary.drift)}
    if signalled and request.signals is not UNSET:
        described["signals"] = signal_facts(request.signals)
    return {
        "identity": identity,
        "time": {
            "now_ms": time.now_ms,
            "zone": time.zone,
            "local_date": time.local_date,
            "hour": time.hour,
            "minute": time.minute,
            "weekday": time.weekday,
        },
        "environment": {"address": request.environment.address, "network": request.environment.network},
        "state": _state(request.state, windows),
        "args": {name: _cedar_value(value) for name, value in arguments.items()},
        **described,
    }


def _state(state: SessionState, windows: Mapping[str, ParameterValue]) -> dict[str, object]:
    record: dict[str, object] = {
        "session": state.session,
        "calls": state.calls,
        "denied": state.denied,
        "started_ms": state.started_ms,
    }
    if windows:
        record["windows"] = {name: _cedar_value(value) for name, value in windows.items()}
    return record


def cedar_request(request: DecisionRequest, context: Mapping[str, object]) -> dict[str, object]:
    """Return what cedarpy takes as a request; ids are given apart from their types, so that no id is ever parsed."""
    kind, identity = resource_uid(request)
    return {
        "principal": {"type": "Agent", "id": request.principal.agent},
        "action": {"type": "Action", "id": request.action},
        "resource": {"type": kind, "id": identity},
        "context": msgspec.json.encode(context).decode(),
    }
