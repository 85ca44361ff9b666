"""The policy engines that are installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from enforcement.config_files import read_secret
from policies.bundles import Bundle
from policies.cellar import DirectoryCellar
from policies.engine import Engine
from policies.engines.opa_server import OPAServer, OPAServerEngine
from policies.evaluate import Evaluator
from policies.explaining import Explainer
from policies.linting import Linter
from policies.programs import EngineKind, installed_program
from policies.signal_reads import SignalRead
from policies.worker_process import WorkerLimits
from policies.workers import WorkerEngine, WorkerPool

__all__ = [
    "ENGINE_KINDS",
    "explainer_of",
    "formatter_of",
    "linter_of",
    "make_evaluator",
    "make_opa_server",
    "signals_read_by",
]


ENGINE_KINDS: Final = (
    EngineKind(name="cedar", distribution="cedarpy", package="cedarpy", factory="policies.engines.cedar:CedarEngine"),
    EngineKind(
        name="rego", distribution="gordon-to-regorus", package="regorus", factory="policies.engines.rego:RegoEngine"
    ),
)
"""Engines that have processes of their own, which import them; this program does not."""


def explainer_of(engine: str) -> Explainer | None:
    """Return what explains decisions of an engine, in this process: a tool for people, not for the service."""
    if engine == "cedar":
        from policies.engines.cedar_explain import explain_cedar

        return explain_cedar
    if engine == "rego":
        from policies.engines.rego_explain import explain_rego

        return explain_rego
    return None


def formatter_of(engine: str) -> Callable[[str, str], str] | None:
    """Return what lays out a policy file of an engine, from its path and text."""
    if engine == "cedar":
        from policies.engines.cedar_format import format_cedar

        return format_cedar
    return None


def linter_of(engine: str) -> Linter | None:
    """Return what looks into bundles of an engine."""
    if engine == "cedar":
        from policies.engines.cedar_lint import lint_cedar

        return lint_cedar
    if engine == "rego":
        from policies.engines.rego_lint import lint_rego

        return lint_rego
    return None


def signals_read_by(bundle: Bundle) -> tuple[SignalRead, ...] | None:
    """Return where the policies of a bundle read signals; None if nobody can tell of its engine.

    Raises:
        PolicySyntaxError: The bundle cannot be read.
    """
    if bundle.manifest.engine == "cedar":
        from policies.engines.cedar_lint import signals_of_cedar

        return signals_of_cedar(bundle)
    if bundle.manifest.engine == "rego":
        from policies.engines.rego_lint import signals_of_rego

        return signals_of_rego(bundle)
    return None


def make_evaluator(
    *,
    workers: int = 2,
    batch_workers: int = 2,
    limits: WorkerLimits | None = None,
    cellar: Path | None = None,
    opa: OPAServer | None = None,
) -> Evaluator:
    """Return an evaluator over every engine that is installed, each in processes of its own; none is started yet.

    Args:
        workers: Most processes of an engine that answer single requests at once.
        batch_workers: Most that answer batches beside them.
        limits: What a process may take.
        cellar: Directory of engines of other versions; it need not be there.
        opa: The operator's OPA server, asked from this process; without one, bundles that want it deny.

    Raises:
        ConfigError: URL or token of the OPA server cannot be used.
    """
    pool = WorkerPool(limits)
    programs = [installed_program(kind) for kind in ENGINE_KINDS]
    engines: dict[str, Engine] = {program.name: WorkerEngine(program, pool) for program in programs}
    server = OPAServerEngine(opa)
    return Evaluator(
        {**engines, server.name: server},
        threads=workers,
        batch_threads=batch_workers,
        cellar=None if cellar is None else DirectoryCellar(cellar, ENGINE_KINDS, pool),
        workers=pool,
    )


def make_opa_server(url: str, token: str, timeout_seconds: float) -> OPAServer | None:
    """Return where the operator's OPA server is.

    Args:
        url: Its base URL; empty if there is none.
        token: URI of the bearer token for it; empty if it wants none.
        timeout_seconds: For one question and its answer.

    Raises:
        ConfigError: The URL cannot be used, or the token cannot be read.
    """
    if not url:
        return None
    return OPAServer(url=url, token=read_secret(token) if token else None, timeout_seconds=timeout_seconds)
