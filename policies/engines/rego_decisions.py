"""What a Rego package says, as a decision; the table stands in `policies.engines.rego`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from policies.engine import Reason
from policies.engines.rego_names import ALLOW
from policies.model import Decision, Effect, Obligation

__all__ = ["MAX_RULES_NAMED", "RegoAnswer", "RegoDecisions"]

MAX_RULES_NAMED: Final = 64
"""Determining rules that one decision names, as many as a decision record holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegoAnswer:
    """What a package says of one request.

    Attributes:
        allowed: Whether ``allow`` is the literal ``true``.
        denies: Names that stand against the call, in bundle order.
        permits: Names that speak for it.
        obligations: What is asked for.
    """

    allowed: bool
    denies: Sequence[str] = ()
    permits: Sequence[str] = ()
    obligations: Sequence[str] = ()


class RegoDecisions:
    """Makes decisions of one engine."""

    def __init__(self, engine: str, engine_version: str) -> None:
        """Take the engine's name and exact version."""
        self._engine = engine
        self._version = engine_version

    def failed(self, revision: str, reason: Reason, detail: str) -> Decision:
        """Return the decision that says: no answer, therefore no."""
        return self._decision(revision, Effect.INDETERMINATE, reason, detail=detail)

    def listed(
        self,
        revision: str,
        effect: Effect,
        reason: Reason,
        rules: Sequence[str] = (),
        obligations: tuple[str, ...] = (),
    ) -> Decision:
        """Return what is said of a call whose arguments are unknown (`policies.listing`)."""
        return self._decision(revision, effect, reason, rules=rules, obligations=obligations)

    def answered(self, revision: str, said: RegoAnswer, stopped_at: Callable[[], str | None]) -> Decision:
        """Return the decision that an answer makes.

        Args:
            revision: The bundle's digest.
            said: The answer.
            stopped_at: Names the condition that stood against a call which nothing permits; None if none did.
        """
        ends = Obligation.END_SESSION in said.obligations
        if said.denies or ends:
            # Whatever permits the call, a session that has to end does not go on with it.
            rules = said.denies or [Obligation.END_SESSION.value]
            return self._decision(
                revision,
                Effect.DENY,
                Reason.POLICY,
                rules=rules,
                failed_condition=rules[0],
                obligations=(Obligation.END_SESSION.value,) if ends else (),
            )
        if said.allowed:
            obligations = tuple(sorted(said.obligations))
            return self._decision(
                revision, Effect.PERMIT, Reason.POLICY, rules=said.permits or [ALLOW], obligations=obligations
            )
        return self._decision(revision, Effect.NOT_APPLICABLE, Reason.NO_PERMIT, failed_condition=stopped_at())

    def _decision(
        self,
        revision: str,
        effect: Effect,
        reason: Reason,
        *,
        rules: Sequence[str] = (),
        failed_condition: str | None = None,
        obligations: tuple[str, ...] = (),
        detail: str = "",
    ) -> Decision:
        names = sorted(rules)
        more = len(names) - MAX_RULES_NAMED
        return Decision(
            effect=effect,
            bundle_revision=revision,
            engine=self._engine,
            engine_version=self._version,
            rules=tuple(names[:MAX_RULES_NAMED]),
            failed_condition=failed_condition,
            obligations=obligations,
            reason=reason,
            detail=f"and {more} more rules" if more > 0 else detail,
        )
