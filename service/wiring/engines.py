"""The policy engines that are installed, and a gateway over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from enforcement.config import GatewayConfig
from enforcement.config_files import read_secret
from enforcement.core import Core, CoreKeys
from enforcement.gateway import Gateway
from ledger.clock import Clock, SystemClock
from ledger.errors import (
    ConfigError,
)
from ledger.keys import load_key
from policies.cellar import DirectoryCellar
from policies.engine import Engine
from policies.engines.opa_server import OPAServer, OPAServerEngine
from policies.evaluate import Evaluator
from policies.explaining import Explainer
from policies.linting import Linter
from policies.programs import EngineKind, installed_program
from policies.worker_process import WorkerLimits
from policies.workers import WorkerEngine, WorkerPool

__all__ = [
    "ENGINE_KINDS",
    "explainer_of",
    "formatter_of",
    "linter_of",
    "make_core",
    "make_evaluator",
    "make_gateway",
    "make_gateway_evaluator",
    "make_opa_server",
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


def make_gateway_evaluator(config: GatewayConfig) -> Evaluator:
    """Return an evaluator as a gateway's configuration wants it; whoever made it closes it.

    Raises:
        ConfigError: The token of the OPA server cannot be read.
    """
    engines, settings = config.engines, config.opa
    limits = WorkerLimits(evaluation_seconds=engines.evaluation_seconds, memory_bytes=engines.memory_bytes)
    opa = None
    if settings is not None:
        opa = make_opa_server(settings.url, settings.token or "", settings.timeout_seconds)
    return make_evaluator(workers=engines.workers, batch_workers=1, limits=limits, opa=opa)


def make_core(
    config: GatewayConfig,
    secret: str | None,
    *,
    evaluator: Evaluator | None = None,
    clock: Clock | None = None,
) -> Core:
    """Return an enforcement point with the keys that its configuration names; it has not been started.

    Args:
        config: Its settings.
        secret: Passphrase of its key files.
        evaluator: Asks policies; its caller's to close. If None, one is made, and closed when the enforcement point
            has stopped.
        clock: The system's clock if None.

    Raises:
        ConfigError: A key cannot be used, or is for another purpose.
        MalformedError: A file is not a key file.
    """
    wanted = {"signing": "enforcer", "pseudonym": "pseudonym", "spool": "spool"}
    keys = {name: load_key(getattr(config.keys, name), secret) for name in wanted}
    for name, purpose in wanted.items():
        if keys[name].purpose != purpose:
            raise ConfigError(f"keys.{name} names a key for {keys[name].purpose}")
    if keys["signing"].name != config.enforcer_id:
        raise ConfigError(f"keys.signing names the key of {keys['signing'].name}, not of {config.enforcer_id}")
    asked = make_gateway_evaluator(config) if evaluator is None else evaluator
    core = Core(
        config,
        evaluator=asked,
        clock=clock or SystemClock(),
        keys=CoreKeys(
            signing=keys["signing"].signing_key(), pseudonym=keys["pseudonym"].seed, spool=keys["spool"].seed
        ),
        simulated=any(key.simulated for key in keys.values()),
        on_stopped=asked.close if evaluator is None else _nothing,
    )
    _watch(core, asked)
    return core


def make_gateway(
    config: GatewayConfig, secret: str | None, *, evaluator: Evaluator, clock: Clock | None = None
) -> Gateway:
    """Return a gateway that has not been started; see `make_core`.

    Args:
        config: Its settings.
        secret: Passphrase of its key files.
        evaluator: Asks policies; its caller's to close.
        clock: The system's clock if None.

    Raises:
        ConfigError: A key cannot be used, or is for another purpose; or a server has no address.
        MalformedError: A file is not a key file.
    """
    return Gateway(make_core(config, secret, evaluator=evaluator, clock=clock))


def _nothing() -> None:
    pass


def _watch(core: Core, evaluator: Evaluator) -> None:
    """Show how the engines' processes are among the gateway's metrics."""
    watch = core.metrics.watch
    watch("policy_workers", "Processes of policy engines", lambda: evaluator.status.workers.running)
    watch("policy_workers_started", "Processes of policy engines so far", lambda: evaluator.status.workers.started)
    watch(
        "policy_workers_stopped",
        "Processes of policy engines that were killed or died",
        lambda: sum(evaluator.status.workers.stopped.values()),
    )
    watch(
        "policy_evaluations_limited",
        "Evaluations that a limit stopped: denials",
        lambda: sum(evaluator.status.limited.values()),
    )
