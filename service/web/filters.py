"""The filters of the home page: from a form's fields to a search, and back to a link."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Query

from ledger.catalog import DecisionQuery
from service.web.rendering import Verbatim

__all__ = ["ENFORCEMENT_CHOICES", "OBSERVED", "PAGE_ROWS", "Filters", "filters_of"]

PAGE_ROWS: Final = 50
"""Decisions on one page."""

OBSERVED: Final = "observed"
ENFORCEMENT_CHOICES: Final = ("allow", "deny", "ask", "kill", OBSERVED)

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}")
_VIEW_LABEL: Final = b"tallystick/live-view/v1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What the visitor wants to see.

    Attributes:
        agent: Agent name, or empty.
        tool: Tool name, or empty.
        enforcement: One of `ENFORCEMENT_CHOICES`, or empty; ``observed`` asks for what was not enforced.
        rule: Name of a determining rule, or empty.
        server: Server name, or empty.
    """

    agent: str = ""
    tool: str = ""
    enforcement: str = ""
    rule: str = ""
    server: str = ""

    @property
    def faults(self) -> dict[str, str]:
        """Return a sentence for each field that holds what no record can."""
        names = {"agent": self.agent, "tool": self.tool, "rule": self.rule, "server": self.server}
        found = {
            field: "Names have letters, digits and _ . : / @ + - only, at most 128."
            for field, value in names.items()
            if value and _NAME.fullmatch(value) is None
        }
        if self.enforcement and self.enforcement not in ENFORCEMENT_CHOICES:
            found["enforcement"] = "Choose one of the list."
        return found

    @property
    def given(self) -> dict[str, str]:
        """Return the fields that restrict, in a fixed order."""
        fields = {"agent": self.agent, "tool": self.tool, "enforcement": self.enforcement, "rule": self.rule}
        fields["server"] = self.server
        return {name: value for name, value in fields.items() if value}

    def typed(self, field: str) -> Verbatim:
        """Return what the visitor typed, for its field."""
        return Verbatim(getattr(self, field))

    def query(self, *, before: int | None = None) -> DecisionQuery:
        """Return the search for one page and one more, which tells whether there is a next page."""
        observed = self.enforcement == OBSERVED
        return DecisionQuery(
            agent=self.agent or None,
            tool=self.tool or None,
            enforcement=None if observed else self.enforcement or None,
            mode="observe" if observed else None,
            rule=self.rule or None,
            server=self.server or None,
            before=before,
            limit=PAGE_ROWS + 1,
        )

    def link(self, path: str = "/", **more: object) -> Verbatim:
        """Return a path with these filters as its query."""
        query = urlencode({**self.given, **{name: str(value) for name, value in more.items()}})
        return Verbatim(f"{path}?{query}" if query else path)

    def view_key(self, session_secret: str) -> str:
        """Return what entitles a session to have this view refreshed.

        A refresh leaves no access record. It must not be a way to read what no recorded view has shown, so it needs
        a key that only the page of the recorded view carries.
        """
        message = _VIEW_LABEL + urlencode(self.given).encode()
        return hmac.new(session_secret.encode(), message, hashlib.sha256).hexdigest()


_Field = Annotated[str, Query(max_length=256)]


def filters_of(
    agent: _Field = "", tool: _Field = "", enforcement: _Field = "", rule: _Field = "", server: _Field = ""
) -> Filters:
    """Return the filters of a request; blanks around a name are not part of it."""
    return Filters(
        agent=agent.strip(),
        tool=tool.strip(),
        enforcement=enforcement.strip(),
        rule=rule.strip(),
        server=server.strip(),
    )
