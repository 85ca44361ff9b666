"""A tiny engine in a distribution of its own, and wheels of it: for tests of the engine cellar, without a network.

The distribution `tiny-engine` says what to answer; `TinyEngine` here is the adapter, as `policies.engines` has them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from policies.bundles import Bundle
from policies.engine import LoadedBundle
from policies.model import Decision, DecisionRequest, Effect
from policies.programs import EngineKind

TINY = EngineKind(
    name="tiny", distribution="tiny-engine", package="tiny_engine", factory="tests.support.kept_engines:TinyEngine"
)


def tiny_wheel(directory: Path, engine_version: str, answer: str = "PERMIT", *, package: str = "tiny_engine") -> Path:
    """Write a wheel whose engine gives one answer to everything."""
    path = directory / f"tiny_engine-{engine_version}-py3-none-any.whl"
    information = f"tiny_engine-{engine_version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{package}/__init__.py", f"ANSWER = {answer!r}\n")
        metadata = f"Metadata-Version: 2.1\nName: tiny-engine\nVersion: {engine_version}\n"
        wheel.writestr(f"{information}/METADATA", metadata)
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return path


class TinyEngine:
    """Answers what its distribution says."""

    name = "tiny"

    def __init__(self) -> None:
        self.version = version(TINY.distribution)
        self._answer = Effect(import_module(TINY.package).ANSWER)

    def load(self, bundle: Bundle) -> LoadedBundle:
        return LoadedBundle(revision=bundle.revision, rules=("all",), handle=None)

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        return [
            Decision(
                effect=self._answer,
                bundle_revision=loaded.revision,
                engine=self.name,
                engine_version=self.version,
                rules=("all",),
            )
            for _ in requests
        ]
