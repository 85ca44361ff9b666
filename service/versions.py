"""Which versions of gateways the service works with: its own minor version and the one before.

Pure. A record is never refused for the version of who wrote it: what happened is taken as it is (architecture.md,
invariant 1), and a gateway that is too old or too new is said to be so where people look (ADR 0031). Only an enrolment
is refused, for nothing is lost by it.

Source: Semantic Versioning 2.0.0, items 2 and 4: below 1.0 the minor version is the one that may break.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

__all__ = ["Standing", "standing"]

_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.[0-9A-Za-z.+-]{1,64}")


class Standing(StrEnum):
    """How a gateway's version stands to the service's."""

    ACCEPTED = "accepted"
    TOO_OLD = "too old"
    TOO_NEW = "too new"
    UNKNOWN = "unknown"


def _minor(version: str) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(version)
    return None if match is None else (int(match[1]), int(match[2]))


def standing(gateway: str, service: str) -> Standing:
    """Return how a gateway's version stands to the service's; patch versions make no difference.

    The last minor version of a major one is not known here: across major versions only the same one is accepted.
    """
    of_gateway, of_service = _minor(gateway), _minor(service)
    if of_gateway is None or of_service is None:
        return Standing.UNKNOWN
    if of_gateway > of_service:
        return Standing.TOO_NEW
    behind = of_gateway[0] == of_service[0] and of_service[1] - of_gateway[1] <= 1
    return Standing.ACCEPTED if behind else Standing.TOO_OLD
