"""The rules that a generated bundle starts with, in Cedar and in Rego.

Pure. They are a beginning, made to be edited, and say the same in both languages:

* who is known may ask what there is;
* a role may call what only reads;
* a role may call what writes; where that cannot be undone or is about money, a person must approve;
* nothing outside the description is let through: the rule `BOUNDARY`.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Final

from ledger.canonical import JSONValue
from policies.generate.encoding import json_bytes
from policies.generate.model import Operation

__all__ = ["APPROVED_TAGS", "BOUNDARY", "DISCOVERY", "Rules", "cedar_files", "rego_files"]

BOUNDARY: Final = "boundary"
DISCOVERY: Final = "discovery"
APPROVED_TAGS: Final = frozenset({"finance", "irreversible"})
"""A call that writes and has one of these tags waits for a person."""

_METHODS: Final = ("notifications/cancelled", "notifications/progress", "ping", "server/discover", "tools/list")

_NAMES: Final = ("server", "reader", "writer", "reads", "writes", "approved_writes")

_CEDAR_SCHEMA: Final = Template("""\
// What every request brings (docs/policies.md).

entity Role;
entity Tag;
entity Agent in [Role] { name: String };
entity Server in [Tag] { name: String };
entity Tool in [Server, Tag] { name: String, server: Server };

type Identity = { user?: String, authn: String, mfa: Bool, roles: Set<String> };
type Moment = { now_ms: Long, zone: String, local_date: String, hour: Long, minute: Long, weekday: Long };
type Surroundings = { address: String, network: String };
type Session = { session: String, calls: Long, denied: Long, started_ms: Long };

// Whether the tool is described, and what of the call lies outside its description (docs/boundaries.md).
type Boundary = { known: Bool, drift: Set<String> };

// The parameters of parameters.json, once there is one.
type Arguments = {};

type Facts = {
  identity: Identity,
  time: Moment,
  environment: Surroundings,
  state: Session,
  boundary: Boundary,
  args: Arguments,
};

action $methods
appliesTo { principal: Agent, resource: Server, context: Facts };

action "tools/call" appliesTo { principal: Agent, resource: Tool, context: Facts };
""")

_CEDAR_DISCOVERY: Final = Template("""\
// Made by `tallystick policy generate`; yours to edit.
@id("discovery")
@description("Who is known may ask what there is.")
permit (
  principal,
  action in
    [$methods],
  resource
)
when { context.identity.authn != "none" };
""")

_CEDAR_READS: Final = Template("""\
@id("$reads")
@description("What only reads.")
permit (
  principal in Role::"$reader",
  action == Action::"tools/call",
  resource in Server::"$server"
)
when { resource in Tag::"read" };
""")

_CEDAR_WRITES: Final = Template("""\
@id("$writes")
@description("What writes, and can be undone.")
permit (
  principal in Role::"$writer",
  action == Action::"tools/call",
  resource in Server::"$server"
)
when { resource in Tag::"write" }
unless { resource in Tag::"finance" || resource in Tag::"irreversible" };
""")

_CEDAR_APPROVED_WRITES: Final = Template("""\
@id("$approved_writes")
@description("What cannot be undone, or is about money, waits for a person.")
@obligation("approval")
permit (
  principal in Role::"$writer",
  action == Action::"tools/call",
  resource in Server::"$server"
)
when
{ resource in Tag::"write" && (resource in Tag::"finance" || resource in Tag::"irreversible") };
""")

_CEDAR_BOUNDARY: Final = Template("""\
@id("boundary")
@description("Nothing that the server's description does not speak of.")
forbid (
  principal,
  action == Action::"tools/call",
  resource
)
unless { context.boundary.drift.isEmpty() };
""")

_REGO_DISCOVERY: Final = Template("""\
# Made by `tallystick policy generate`; yours to edit.

package generated

# What the server's description says of the tool, and what the gateway says of it.
tags contains tag if {
	input.resource.server == "$server"
	some tag in data.tools[input.resource.name].tags
}

tags contains tag if {
	input.resource.server == "$server"
	some tag in input.resource.tags
}

# What cannot be undone, or is about money, waits for a person.
waits if "finance" in tags

waits if "irreversible" in tags

# Who is known may ask what there is.
permits contains "discovery" if {
	input.action in {$methods}
	input.principal.authn != "none"
}
""")

_REGO_READS: Final = Template("""\
permits contains "$reads" if {
	input.action == "tools/call"
	"$reader" in input.principal.roles
	"read" in tags
}
""")

_REGO_WRITES: Final = Template("""\
permits contains "$writes" if {
	input.action == "tools/call"
	"$writer" in input.principal.roles
	"write" in tags
	not waits
}
""")

_REGO_APPROVED_WRITES: Final = Template("""\
permits contains "$approved_writes" if {
	input.action == "tools/call"
	"$writer" in input.principal.roles
	"write" in tags
	waits
}

obligations contains "approval" if "$approved_writes" in permits
""")

_REGO_BOUNDARY: Final = Template("""\
# Nothing that the server's description does not speak of.
denies contains "boundary" if {
	input.action == "tools/call"
	count(input.boundary.drift) > 0
}

allow if count(permits) > 0
""")


@dataclass(frozen=True, slots=True)
class Rules:
    """Names of rules and roles for one server.

    Attributes:
        server: The server.
    """

    server: str

    @property
    def reader(self) -> str:
        """The role that may call what reads."""
        return f"{self.server}-reader"

    @property
    def writer(self) -> str:
        """The role that may call what writes."""
        return f"{self.server}-writer"

    @property
    def reads(self) -> str:
        """The rule for what reads."""
        return f"{self.server}-reads"

    @property
    def writes(self) -> str:
        """The rule for what writes."""
        return f"{self.server}-writes"

    @property
    def approved_writes(self) -> str:
        """The rule for what writes and waits for a person."""
        return f"{self.server}-approved-writes"

    def rule_of(self, operation: Operation) -> str:
        """Return the rule that permits an operation."""
        if operation.access == "read":
            return self.reads
        return self.writes if APPROVED_TAGS.isdisjoint(operation.tags) else self.approved_writes

    def role_of(self, operation: Operation) -> str:
        """Return the role that may call an operation."""
        return self.reader if operation.access == "read" else self.writer


def _text(server: str, operations: tuple[Operation, ...], templates: dict[str, Template], **words: str) -> bytes:
    """Return the templates filled in, without those of rules that no operation falls under."""
    rules = Rules(server)
    names = {name: str(getattr(rules, name)) for name in _NAMES}
    used = {rules.rule_of(operation) for operation in operations}
    texts = [
        template.substitute(names, **words)
        for name, template in templates.items()
        if name in {"first", "last"} or names[name] in used
    ]
    return "\n".join(texts).encode()


def cedar_files(server: str, operations: tuple[Operation, ...]) -> dict[str, bytes]:
    """Return policy, schema and entities in Cedar, by path.

    Args:
        server: The server.
        operations: What it offers; a rule that none of them falls under is left out.
    """
    templates = {
        "first": _CEDAR_DISCOVERY,
        "reads": _CEDAR_READS,
        "writes": _CEDAR_WRITES,
        "approved_writes": _CEDAR_APPROVED_WRITES,
        "last": _CEDAR_BOUNDARY,
    }
    actions = ",\n     ".join(f'Action::"{method}"' for method in _METHODS)
    return {
        "policy.cedar": _text(server, operations, templates, methods=actions),
        "schema.cedarschema": _CEDAR_SCHEMA.substitute(methods=_quoted(_METHODS)).encode(),
        "entities.json": _entities(server, operations),
    }


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _entities(server: str, operations: tuple[Operation, ...]) -> bytes:
    entities: list[JSONValue] = [
        {
            "uid": {"type": "Tool", "id": f"{server}/{operation.tool}"},
            "attrs": {},
            "parents": [{"type": "Tag", "id": tag} for tag in operation.tags],
        }
        for operation in sorted(operations, key=lambda item: item.tool)
    ]
    # One tool on each line: what a later description changes is seen at once.
    return b"[\n" + b",\n".join(json_bytes(entity) for entity in entities) + b"\n]\n"


def rego_files(server: str, operations: tuple[Operation, ...]) -> dict[str, bytes]:
    """Return policy and data in Rego, by path; see `cedar_files`."""
    templates = {
        "first": _REGO_DISCOVERY,
        "reads": _REGO_READS,
        "writes": _REGO_WRITES,
        "approved_writes": _REGO_APPROVED_WRITES,
        "last": _REGO_BOUNDARY,
    }
    tools: dict[str, JSONValue] = {
        operation.tool: {"access": operation.access, "tags": [*operation.tags]} for operation in operations
    }
    return {
        "policy.rego": _text(server, operations, templates, methods=_quoted(_METHODS)),
        "data.json": json_bytes({"tools": tools}, indent=1),
    }
