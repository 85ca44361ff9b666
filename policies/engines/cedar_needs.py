"""What a call that no permit speaks for would need: what the permits say that are about it.

A ``permit`` may name what whoever is refused would need: ``@needs("mfa")``. Where a ``forbid`` stands against a call,
it is the forbid that says it. Where no permit holds, it is those whose scope the call meets (principal, action and
resource), and whose conditions it does not: Cedar is asked for them once more without conditions.

INVARIANT 6: needs are names that the policy's text says, never values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

import cedarpy

from policies.engines.cedar_policies import CedarRule

__all__ = ["PermitNeeds"]


class PermitNeeds:
    """The permits of a bundle that name what they need. Safe for any thread."""

    def __init__(self, rules: Iterable[CedarRule]) -> None:
        """Take the bundle's rules."""
        self._needs = {rule.name: rule.needs for rule in rules if rule.needs and not rule.forbids}
        texts = [_without_conditions(rule.text) for rule in rules if rule.name in self._needs]
        self._policies = cedarpy.PolicySet.from_str("\n".join(texts))
        named: Mapping[str, cedarpy.pst.Template] = self._policies.to_pst().static_policies
        self._names = {identity: policy.annotations["id"] for identity, policy in named.items()}

    def of(self, ask: Callable[[cedarpy.PolicySet], cedarpy.AuthzResult]) -> tuple[str, ...]:
        """Return what the permits need that are about a request, sorted.

        Args:
            ask: Puts the request to some policies.
        """
        if not self._needs:
            return ()
        reasons = ask(self._policies).diagnostics.reasons
        return tuple(sorted({need for identity in reasons for need in self._needs[self._names[identity]]}))


def _without_conditions(text: str) -> str:
    document = json.loads(cedarpy.policies_to_json_str(text))
    for policy in document["staticPolicies"].values():
        policy["conditions"] = []
    return cedarpy.policies_from_json_str(json.dumps(document))
