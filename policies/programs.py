"""Where an engine's process finds what it imports: its own package, ours, and the few libraries that ours need.

A process of an engine has nothing else on its import path, so neither what else is installed nor what somebody put into
the environment can get into a decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from policies.worker_process import EngineProgram

__all__ = ["EngineKind", "installed_program", "installed_version", "kept_program", "own_paths"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """An engine that has processes of its own; they import it, and nobody else does.

    Attributes:
        name: As bundles name it.
        distribution: Its package's name in the index of packages; the package's exact version is the engine's.
        package: The name under which that is imported.
        factory: Where the engine's class is, ``module:name``.
    """

    name: str
    distribution: str
    package: str
    factory: str


def installed_version(kind: EngineKind) -> str:
    """Return the exact version of an engine that is installed."""
    return version(kind.distribution)


def installed_program(kind: EngineKind) -> EngineProgram:
    """Return how an engine is started that is installed."""
    homes = [*own_paths(), *filter(None, [_home(kind.package)])]
    return EngineProgram(
        name=kind.name, version=installed_version(kind), factory=kind.factory, paths=tuple(dict.fromkeys(homes))
    )


def kept_program(kind: EngineKind, engine_version: str, packages: Path) -> EngineProgram:
    """Return how an engine of another version is started.

    Args:
        kind: The engine.
        engine_version: Which version.
        packages: Directory that holds its package; it comes before all others, so that no installed one is met.
    """
    return EngineProgram(
        name=kind.name, version=engine_version, factory=kind.factory, paths=(str(packages), *own_paths())
    )
