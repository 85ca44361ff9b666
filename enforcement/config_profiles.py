"""Settings of behaviour baselines. Pure; see `enforcement.profiles`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from enforcement.config_types import RecordName, Seconds, Settings
from enforcement.profiles.thresholds import Thresholds

__all__ = ["MAX_PROFILES", "ProfileSettings"]

MAX_PROFILES = 1024
"""Most agents of which one gateway keeps a profile."""


class ProfileSettings(Settings):
    """What is learned of agents, and what departs from it. Without this nothing is learned.

    Attributes:
        ready_calls: Calls that a baseline is learned from, at least.
        ready_days: Local days on which they were made, at least.
        agents: Agents of which a profile is kept, at most; of others there is none, and that is said.
        read_tags: A call with one of these tags reads what must not get out.
        send_tags: A call with one of these can take something out.
        save_seconds: What was learned is written to the state file this often; a crash forgets at most so much of it.
        orders_seconds: How often the service is asked whether somebody accepted or reset a baseline.
    """

    ready_calls: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    ready_days: Annotated[int, Field(ge=1, le=60)] = 7
    agents: Annotated[int, Field(ge=1, le=MAX_PROFILES)] = 256
    read_tags: tuple[RecordName, ...] = ("sensitive",)
    send_tags: tuple[RecordName, ...] = ("external",)
    save_seconds: Seconds = 10
    orders_seconds: Seconds = 30

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.read_tags)) != len(self.read_tags) or len(set(self.send_tags)) != len(self.send_tags):
            raise ValueError("a tag is listed twice")
        return self

    @property
    def thresholds(self) -> Thresholds:
        """What counts as a departure."""
        return Thresholds(ready_calls=self.ready_calls, ready_days=self.ready_days)
