"""Settings of behaviour windows that hold across gateways."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from enforcement.config_types import Settings

__all__ = ["WindowSettings"]


class WindowSettings(Settings):
    """Windows across gateways; those of this gateway alone need no setting.

    Attributes:
        strict_seconds: How long a call waits for the service to give out a strict cap; beyond it the cap counts as
            reached.
        exchange_seconds: How often gateways tell each other what they have counted.
    """

    strict_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1
    exchange_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 1
