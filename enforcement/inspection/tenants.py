"""Identifiers of other tenants, by the lists and patterns that the operator gives.

Pure. All lists are one automaton: how many identifiers there are does not slow a scan down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enforcement.inspection.patterns import Pattern, escaped, linear
from enforcement.inspection.settings import Settings, TenantIdentifiers
from ledger.errors import ConfigError

__all__ = ["Tenants"]


class Tenants:
    """The identifiers of all tenants but our own."""

    def __init__(self, settings: Settings) -> None:
        """Compile them.

        Raises:
            ConfigError: A pattern is none, or matches nothing at all, which would be everywhere.
        """
        self._others = [
            (tenant.tenant, _compiled(tenant)) for tenant in settings.tenants if tenant.tenant != settings.own_tenant
        ]
        self._any = _any_of([_source(tenant) for tenant in settings.tenants if tenant.tenant != settings.own_tenant])

    def found(self, data: bytes) -> Iterator[tuple[str, int, int]]:
        """Yield a tenant's label, start and end of each of its identifiers."""
        if self._any is None or not self._any.matches(data):
            return
        for label, pattern in self._others:
            for match in pattern.finditer(data):
                yield label, *match.span()


def _source(tenant: TenantIdentifiers) -> bytes:
    literals = b"|".join(escaped(text) for text in tenant.literals)
    parts = [rb"(?i:\b(?:" + literals + rb")\b)"] if literals else []
    parts += [b"(?:" + pattern.encode() + b")" for pattern in tenant.patterns]
    return b"|".join(parts)


def _compiled(tenant: TenantIdentifiers) -> Pattern:
    source = _source(tenant)
    if not source:
        raise ConfigError(f"tenant {tenant.tenant}: has no identifiers")
    pattern = linear(source)
    if pattern.matches(b""):
        raise ConfigError(f"tenant {tenant.tenant}: a pattern matches an empty text, and so would stand everywhere")
    return pattern


def _any_of(sources: Sequence[bytes]) -> Pattern | None:
    return linear(b"|".join(sources)) if sources else None
