"""Settings: whom a wrapped server's client stands for, and what the server gets to see of the environment.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from enforcement.config_types import Names, RecordName, Seconds, Settings, refuse_twice

__all__ = ["INHERITED", "StdioPrincipal", "StdioSettings"]

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""What a wrapped server inherits of the environment unless the operator names more."""

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    refuse_twice(list(names), "a variable is listed twice")
    return names


class StdioPrincipal(Settings):
    """Who calls over standard input; a pipe proves nothing, so that the configuration says it.

    Attributes:
        agent: The agent.
        user: On whose behalf it acts.
        roles: Its roles.
        mfa: A second factor was part of how that person came to this machine.
    """

    agent: RecordName
    user: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    roles: Names = ()
    mfa: bool = False


class StdioSettings(Settings):
    """How ``tallystick wrap`` runs a server.

    Attributes:
        principal: Who calls.
        inherit: Names of variables that the server inherits beside `INHERITED`.
        stop_seconds: How long the server may take to end once its input is closed, and again once it was told to
            terminate; then it is killed.
    """

    principal: StdioPrincipal
    inherit: Annotated[tuple[VariableName, ...], Field(max_length=256), AfterValidator(_each_once)] = ()
    stop_seconds: Seconds = 5
