"""Behaviour windows reach Cedar and Rego alike, in their processes: the same values, the same decisions, exactly."""

from __future__ import annotations

import asyncio
import json

from policies.bundles import Bundle, bundle_from_files
from policies.model import DecisionRequest, with_windows
from policies.windows import read_windows
from service.wiring.engines import make_evaluator
from tests.support.policies import make_request
from tests.unit.policies.test_cedar_windows import HELD, POLICY, WINDOWS, bundle

REGO = """package caps

default allow := false

allow if count(denies) == 0

permits contains "any" if allow

denies contains "cap" if not input.state.windows.spent <= 100

denies contains "rate" if input.state.windows.calls > 5

denies contains "deputy" if input.state.windows.taint
"""
CHANGES: list[dict[str, int | str | bool]] = [
    {},
    {"spent": "100.0001"},
    {"spent": "-0.0001"},
    {"spent": "9999999999.9999"},
    {"spent": "922337203685477.5808"},
    {"calls": 6},
    {"calls": 2**53 - 1},
    {"calls": "9223372036854775808"},
    {"taint": True},
    {"taint": 1},
    {"spent": "100.0001", "calls": 6, "taint": True},
]


def rego_bundle() -> Bundle:
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "caps",
        "engine": "rego",
        "package": "caps",
        "policies": ["caps.rego"],
        "parameters": "parameters.json",
        "windows": "windows.json",
    }
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "caps.rego": REGO.encode(),
        "parameters.json": bundle().files["parameters.json"],
        "windows.json": json.dumps({"windows": WINDOWS}).encode(),
    }
    return bundle_from_files(files)


def test_both_engines_decide_alike_on_every_value_of_a_window() -> None:
    assert read_windows(rego_bundle()).digests == read_windows(bundle()).digests

    async def decide() -> tuple[list[object], list[object]]:
        evaluator = make_evaluator(workers=1, batch_workers=1)
        requests: list[DecisionRequest] = [make_request()]
        requests += [read_windows(bundle()).stated(make_request(), {**HELD, **change}) for change in CHANGES]
        requests += [
            with_windows(make_request(), {"spent": "1.0000"}),
            with_windows(make_request(), HELD, {"calls": "0" * 32}),
        ]
        try:
            cedar, rego = [
                [
                    (item.decision.effect, item.decision.rules, item.decision.reason, item.decision.detail)
                    for item in await evaluator.evaluate_many(given, requests)
                ]
                for given in (bundle(POLICY), rego_bundle())
            ]
        finally:
            evaluator.close()
        return list(cedar), list(rego)

    cedar, rego = asyncio.run(decide())
    assert cedar == rego
    assert len(set(cedar)) > 6
