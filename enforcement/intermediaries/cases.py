"""What a case is, and what it has at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from enforcement.intermediaries.caller import Answer, Caller, Failed
from enforcement.intermediaries.stub import Seen, StubServer

__all__ = ["CLASSIC", "MODERN", "Bench", "Case", "NotApplicable", "case", "expect"]

MODERN = "MCP 2026-07-28, Streamable HTTP"
CLASSIC = "MCP 2025-11-25, Streamable HTTP"


class NotApplicable(Exception):  # noqa: N818  # it is no error
    """A case asks for something that the operator did not name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a case works with.

    Attributes:
        stub: The server behind the intermediary.
        caller: The client before it.
        mark: Stands in the messages of this case and in no others.
        denied_tool: A tool that the intermediary denies, if it denies any.
        oversize_bytes: A length of body that it refuses, if it bounds them.
    """

    stub: StubServer
    caller: Caller
    mark: str
    denied_tool: str | None
    oversize_bytes: int | None

    def reached(self) -> list[Seen]:
        """Return the requests of this case that reached the server."""
        return self.stub.reached(self.mark)

    def refused(self, answer: Answer) -> None:
        """Check that a message was refused, and that the server never knew.

        Raises:
            Failed: It was not.
        """
        if self.reached():
            raise Failed("the message reached the server")
        if not answer.is_refusal():
            raise Failed(f"the message was answered as if nothing were wrong (status {answer.status})")

    def only(self) -> Seen:
        """Return the one request of this case that reached the server.

        Raises:
            Failed: There is none, or more than one.
        """
        found = self.reached()
        if len(found) != 1:
            raise Failed(f"{len(found)} requests reached the server, not one")
        return found[0]


Run: TypeAlias = Callable[[Bench], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Case:
    """A case.

    Attributes:
        name: What it is called; it stays.
        requirement: What an intermediary has to do.
        source: Where that is said.
        run: Tries it; raises `Failed` or `NotApplicable`.
    """

    name: str
    requirement: str
    source: str
    run: Callable[[Bench], Awaitable[None]]


def case(table: list[Case], name: str, requirement: str, source: str) -> Callable[[Run], Run]:
    """Add a function to a table of cases."""

    def add(run: Run) -> Run:
        table.append(Case(name, requirement, source, run))
        return run

    return add


def expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001  # a condition
    """Fail unless something holds.

    Raises:
        Failed: It does not.
    """
    if not holds:
        raise Failed(otherwise)
