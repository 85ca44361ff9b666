"""The names by which a Rego package decides, for our own engine and for an operator's server.

Nothing here needs regorus: a program that only asks a server does not load it.
"""

from __future__ import annotations

import re
from typing import Final

from ledger.errors import PolicySyntaxError

__all__ = ["ALLOW", "DENIES", "LISTED", "NEEDS", "OBLIGATIONS", "PERMITS", "package_path"]

ALLOW: Final = "allow"
PERMITS: Final = "permits"
DENIES: Final = "denies"
OBLIGATIONS: Final = "obligations"
LISTED: Final = "listed"
NEEDS: Final = "needs"

_PACKAGE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


def package_path(package: str) -> tuple[str, ...]:
    """Return the parts of a package's name.

    Raises:
        PolicySyntaxError: Not names joined by dots.
    """
    if not _PACKAGE.fullmatch(package):
        raise PolicySyntaxError(f"not a package: {package[:200]!a}")
    return tuple(package.split("."))
