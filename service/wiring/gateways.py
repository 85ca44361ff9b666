"""A gateway over the policy engines that are installed, and the same core for other transports."""

from __future__ import annotations

from enforcement.config import GatewayConfig
from enforcement.core import Core, CoreKeys
from enforcement.gateway import Gateway
from ledger.clock import Clock, SystemClock
from ledger.errors import ConfigError
from ledger.keys import load_key
from policies.evaluate import Evaluator
from policies.worker_process import WorkerLimits
from service.wiring.engines import make_evaluator, make_opa_server

__all__ = ["make_core", "make_gateway", "make_gateway_evaluator"]


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
