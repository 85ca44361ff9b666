"""What service and gateway show of their policy engines' processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from enforcement.metrics import Metrics as GatewayMetrics
from policies.evaluate import EvaluatorStatus
from policies.workers import WorkerStatus
from service.health import Metrics
from service.wiring.gateways import _watch

STATUS = EvaluatorStatus(
    workers=WorkerStatus(running=3, leased=1, started=7, stopped={"time": 2, "crash": 1}),
    limited={"time": 2, "memory": 5},
)
EVALUATOR: Any = SimpleNamespace(status=STATUS)


def test_service_shows_processes_and_what_limits_stopped():
    metrics = Metrics()
    metrics._refresh_engines(SimpleNamespace(evaluator=EVALUATOR))  # type: ignore[arg-type]  # all that it looks at
    value = metrics.registry.get_sample_value
    assert value("tallystick_policy_workers") == 3
    assert value("tallystick_policy_workers_stopped", {"cause": "time"}) == 2
    assert value("tallystick_policy_evaluations_limited", {"limit": "memory"}) == 5
    assert value("tallystick_policy_evaluations_limited", {"limit": "crash"}) is None


def test_gateway_shows_processes_and_what_limits_stopped():
    gateway: Any = SimpleNamespace(metrics=GatewayMetrics())
    _watch(gateway, EVALUATOR)
    value = gateway.metrics.registry.get_sample_value
    assert value("tallystick_policy_workers") == 3
    assert value("tallystick_policy_workers_started") == 7
    assert value("tallystick_policy_workers_stopped") == 3
    assert value("tallystick_policy_evaluations_limited") == 7
