"""Where an engine's process finds what it imports: its own package, ours, and the few libraries that ours need.

A process of an engine has nothing else on its import path, so neither what else is installed nor what somebody put into
the environment can get into a decision.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from policies.worker_process import EngineProgram

__all__ = ["installed_program", "own_paths"]

# What `policies` and `ledger` import on the way to an engine, besides themselves.
_LIBRARIES: Final = ("msgspec", "orjson", "rfc8785", "jsonschema_rs")


def _home(package: str) -> str | None:
    """Return the directory that a package is imported from, or None if it is not there."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return None
    return str(Path(found.origin).parents[1 if found.submodule_search_locations is not None else 0])


def own_paths() -> tuple[str, ...]:
    """Return the directories of our own packages and of what they need."""
    homes = [_home(package) for package in ("policies", "ledger", *_LIBRARIES)]
    return tuple(dict.fromkeys(home for home in homes if home is not None))


def installed_program(name: str, *, distribution: str, package: str, factory: str) -> EngineProgram:
    """Return how the installed engine of a name is started.

    Args:
        name: The engine's name.
        distribution: Its package's name in the index of packages; its version is the engine's.
        package: The name under which that is imported.
        factory: Where the engine's class is, ``module:name``.
    """
    homes = [*own_paths(), *filter(None, [_home(package)])]
    return EngineProgram(name=name, version=version(distribution), factory=factory, paths=tuple(dict.fromkeys(homes)))
