"""Settings of which definitions of tools stand at a server. Pure; see `enforcement.pins`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from enforcement.config_types import Seconds, Settings

__all__ = ["PinningSettings", "ToolPinSettings"]


class ToolPinSettings(Settings):
    """Which definitions of a server's tools stand.

    ``pins: first_use`` is short for ``pins: {mode: first_use}``.

    Attributes:
        mode: ``off``: whatever the server lists. ``first_use``: what it lists first stands, and anything else waits for
            a person. ``listed``: what a signed manifest names stands, and nothing else.
        manifest: File of the signed manifest (``tallystick tools manifest``).
        trusted_keys: File with the public keys that must all have signed it: one of Ed25519 and one of ML-DSA-65.
    """

    mode: Literal["off", "first_use", "listed"] = "off"
    manifest: Path | None = None
    trusted_keys: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:  # noqa: ANN401  # whatever stands in the file
        # YAML 1.1 reads a bare `off` as false.
        if value is False:
            return {"mode": "off"}
        return {"mode": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.manifest is None) is not (self.trusted_keys is None):
            raise ValueError("manifest and trusted_keys go together")
        if self.mode == "listed" and self.manifest is None:
            raise ValueError("listed takes a manifest and trusted_keys")
        if self.mode == "off" and self.manifest is not None:
            raise ValueError("a manifest is given, but pins are off")
        return self


class PinningSettings(Settings):
    """How a gateway looks after the definitions of tools, where a server has pins.

    Attributes:
        fetch_seconds: It asks each server for its tools this often by itself; beside that at its start, and whenever a
            server says that its list has changed. 0: never.
        fetch_timeout_seconds: For one server's whole list.
        poll_seconds: What people have approved is asked for this often.
    """

    fetch_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300
    fetch_timeout_seconds: Seconds = 10
    poll_seconds: Seconds = 2
