"""The roles that a token may have.

A module of its own, so that the command line can offer them without loading what a service is made of; what each role
may do is in `auth`.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Role"]


class Role(StrEnum):
    """Who a token speaks for."""

    ENFORCER = "enforcer"
    CLIENT = "client"
    AUDITOR = "auditor"
    RESPONDER = "responder"
    APPROVER = "approver"
    ADMIN = "admin"
