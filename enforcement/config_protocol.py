"""Settings: which revisions of the protocol pass, and what the stateful ones may take up.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from enforcement.config_types import Settings, not_empty, refuse_twice
from enforcement.revisions import DEFAULT_REVISIONS, Revision

__all__ = ["ProtocolSettings", "Revisions"]


def _each_once(revisions: tuple[Revision, ...]) -> tuple[Revision, ...]:
    refuse_twice(list(revisions), "a revision is listed twice")
    return revisions


Revisions: TypeAlias = Annotated[tuple[Revision, ...], AfterValidator(not_empty), AfterValidator(_each_once)]


class ProtocolSettings(Settings):
    """What of the protocol passes.

    Attributes:
        revisions: Revisions that pass; a server's own list stands in its place for that server.
        sessions: Most sessions of stateful revisions at once.
        sessions_per_principal: Most of them that one principal may have.
        streams: Most streams that clients hold open with GET at once; they are counted apart from calls.
        server_requests: Most requests of a server that wait for the client's answer, in one session.
        unasked_answers: What becomes of a call with ``inputResponses`` and no ``requestState``: a server that asks
            through a gateway always gives a state, so that nobody asked. ``refuse`` it, or ``pass`` it as it is;
            policies do not get to see what stands in its answers.
    """

    revisions: Revisions = tuple(DEFAULT_REVISIONS)
    sessions: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    sessions_per_principal: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    streams: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    server_requests: Annotated[int, Field(ge=1, le=10_000)] = 64
    unasked_answers: Literal["refuse", "pass"] = "refuse"
