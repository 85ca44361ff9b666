"""The policy engines that are installed, and a gateway over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from enforcement.config import GatewayConfig
from enforcement.gateway import Gateway, build_gateway
from ledger.clock import Clock, SystemClock
from ledger.errors import (
    ConfigError,
)
from ledger.keys import load_key
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_explain import explain_cedar
from policies.engines.cedar_format import format_cedar
from policies.engines.cedar_lint import lint_cedar
from policies.evaluate import Evaluator
from policies.explaining import Explainer
from policies.linting import Linter

__all__ = ["EXPLAINERS", "FORMATTERS", "LINTERS", "make_evaluator", "make_gateway"]

EXPLAINERS: Final[Mapping[str, Explainer]] = {"cedar": explain_cedar}
"""What explains decisions, by engine."""

FORMATTERS: Final[Mapping[str, Callable[[str, str], str]]] = {"cedar": format_cedar}
"""What lays out a policy file (its path and its text), by engine."""

LINTERS: Final[Mapping[str, Linter]] = {"cedar": lint_cedar}
"""What looks into bundles, by engine."""


def make_evaluator() -> Evaluator:
    """Return an evaluator over every engine that is installed."""
    return Evaluator({"cedar": CedarEngine()})


def make_gateway(
    config: GatewayConfig, secret: str | None, *, clock: Clock | None = None, evaluator: Evaluator | None = None
) -> Gateway:
    """Return a gateway with the keys that its configuration names; it has not been started.

    Args:
        config: Its settings.
        secret: Passphrase of its key files.
        clock: The system's clock if None.
        evaluator: A new one if None.

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
    return build_gateway(
        config,
        evaluator=evaluator or make_evaluator(),
        clock=clock or SystemClock(),
        signing_key=keys["signing"].signing_key(),
        pseudonym_key=keys["pseudonym"].seed,
        spool_key=keys["spool"].seed,
        simulated=any(key.simulated for key in keys.values()),
    )
