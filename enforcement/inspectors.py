"""The inspector that a gateway's settings describe.

The engine is `enforcement.inspection`; here it is given its settings and the operator's rules, and told what an agent
is there for: whatever *any* of the roles that the settings know lets it do is not off its role. An agent without such a
role is held to nothing.

Its digest says all of it: another role, tenant or rule file is another inspector in the records.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from enforcement.config_inspection import MOST_BYTES, InspectionSettings
from enforcement.inspection import Findings, Inspector, Limits, Role, Settings, TenantIdentifiers, read_folder
from ledger.canonical import canonical_bytes, sha256

__all__ = ["ConfiguredInspector", "inspector_of"]


class ConfiguredInspector:
    """Looks at JSON as an `Inspector` does, with what agents are there for. Safe for any thread.

    Attributes:
        digest: SHA-256 over rules, thresholds, tenants and roles.
    """

    def __init__(self, engine: Inspector, roles: Sequence[Role]) -> None:
        """Take the engine.

        Args:
            engine: Finds things.
            roles: What agents of a role are there for.
        """
        self._engine = engine
        self._roles = {role.name: role for role in roles}
        said = {"engine": engine.digest, "roles": [msgspec.to_builtins(role) for role in roles]}
        self.digest = sha256(canonical_bytes(said)).hex()

    def json(self, data: bytes, *, roles: Sequence[str] = (), tool: str = "") -> Findings:
        """Return what is found in a JSON text; see `enforcement.looking.Inspector`."""
        return self._engine.json(data, role=self._together(roles), tool=tool)

    def _together(self, names: Sequence[str]) -> Role | None:
        known = [self._roles[name] for name in names if name in self._roles]
        if not known:
            return None
        if len(known) == 1:
            return known[0]
        any_verb = any(not role.verbs for role in known)
        return Role(
            name="+".join(role.name for role in known),
            topics=tuple(dict.fromkeys(topic for role in known for topic in role.topics)),
            verbs=() if any_verb else tuple(dict.fromkeys(verb for role in known for verb in role.verbs)),
            paths=tuple(dict.fromkeys(path for role in known for path in role.paths)),
        )


def inspector_of(settings: InspectionSettings) -> ConfiguredInspector:
    """Compile the rules and return the inspector; takes seconds.

    Args:
        settings: What is looked for.

    Raises:
        ConfigError: A rule, pattern, tenant or role cannot be used; the message names it, or its file.
    """
    described = Settings(
        limits=Limits(max_bytes=MOST_BYTES),
        tenants=tuple(
            TenantIdentifiers(tenant=one.tenant, literals=one.literals, patterns=one.patterns)
            for one in settings.tenants
        ),
        own_tenant=settings.tenant or "",
        regions=settings.regions,
    )
    roles = [Role(name=one.role, topics=one.topics, verbs=one.verbs, paths=one.paths) for one in settings.roles]
    rules = None if settings.rules is None else read_folder(settings.rules)
    return ConfiguredInspector(Inspector(described, rules), roles)
