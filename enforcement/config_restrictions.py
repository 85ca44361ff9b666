"""Settings of how a gateway follows what is contained. Pure; see `enforcement.restrictions`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from enforcement.config_types import Seconds, Settings

__all__ = ["RestrictionSettings"]


class RestrictionSettings(Settings):
    """How containments, and kills of other gateways, reach this one.

    Attributes:
        wait_seconds: How long the service may hold the question for what is stopped; 0: not at all.
        poll_seconds: How often it is asked if it does not, or did not answer.
        max_stale_seconds: Longest time without an answer; beyond, strict calls are denied.
    """

    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 20
    poll_seconds: Seconds = 1
    max_stale_seconds: Seconds = 60

    @model_validator(mode="after")
    def _outlasts_a_question(self) -> Self:
        if self.max_stale_seconds <= self.wait_seconds:
            raise ValueError("max_stale_seconds is longer than wait_seconds: each held question would make it stale")
        return self
