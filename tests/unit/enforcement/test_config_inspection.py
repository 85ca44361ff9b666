"""What is said of inspection by gateway, server and tool, and which of it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from enforcement.config_inspection import InspectionSettings, inspecting_of
from enforcement.guarding import guarding_of
from policies.signals import FINDING_KINDS
from tests.support.gateway import config_of
from tests.support.inspectors import ThreeRules


def found(gateway: Any, server: Any = None, tool: Any = None, method: str = "tools/call", name: str = "pay"):
    options: dict[str, Any] = {} if server is None else {"inspection": server}
    if tool is not None:
        options["tools"] = [{"name": "pay", "inspection": tool}]
    config = config_of(Path("/x/state"), "http://127.0.0.1:1", "http://127.0.0.1:1", inspection=gateway, server=options)
    return inspecting_of(config.inspection, config.servers[0], method, name)


def test_a_gateway_without_inspection_inspects_nothing_whatever_a_server_says():
    assert found(None, {"enabled": True}, {"enabled": True}) is None
    assert inspecting_of(InspectionSettings(), None, "tools/call", "pay") is None


def test_by_default_every_kind_is_looked_for_and_reported():
    inspecting = found({})
    assert inspecting is not None
    assert inspecting.kinds == set(FINDING_KINDS)
    assert set(inspecting.acts.values()) == {"report"}
    assert not inspecting.alters
    assert not inspecting.holds_partial


@pytest.mark.parametrize(
    ("server", "tool", "method", "name", "acts", "max_bytes"),
    [
        (None, None, "tools/call", "pay", {"secret": "redact"}, 2048),
        ({"max_bytes": 4096}, None, "tools/call", "pay", {"secret": "redact"}, 4096),
        ({"acts": {"ansi": "block"}}, None, "tools/call", "pay", {"secret": "redact", "ansi": "block"}, 2048),
        ({"acts": {"secret": "report"}}, None, "tools/call", "pay", {}, 2048),
        ({"max_bytes": 4096}, {"acts": {"secret": "block"}}, "tools/call", "pay", {"secret": "block"}, 4096),
        ({"max_bytes": 4096}, {"acts": {"secret": "block"}}, "tools/call", "other", {"secret": "redact"}, 4096),
        ({"max_bytes": 4096}, {"acts": {"secret": "block"}}, "prompts/get", "pay", {"secret": "redact"}, 4096),
        ({"enabled": False}, {"enabled": True}, "tools/call", "pay", {"secret": "redact"}, 2048),
    ],
)
def test_what_is_said_nearest_holds_member_by_member(server, tool, method, name, acts, max_bytes):
    inspecting = found({"acts": {"secret": "redact"}, "max_bytes": 2048}, server, tool, method, name)
    assert inspecting is not None
    assert {kind: act for kind, act in inspecting.acts.items() if act != "report"} == acts
    assert inspecting.max_bytes == max_bytes


@pytest.mark.parametrize(("server", "tool"), [({"enabled": False}, None), (None, {"enabled": False})])
def test_a_server_or_tool_can_be_left_out(server, tool):
    assert found({}, server, tool) is None


def test_an_act_for_a_kind_that_is_not_looked_for_alters_nothing():
    inspecting = found({"acts": {"secret": "redact"}}, {"kinds": ["ansi"]})
    assert inspecting is not None
    assert inspecting.acts == {"ansi": "report"}
    assert not inspecting.alters


@pytest.mark.parametrize(
    ("acts", "act", "expected"),
    [
        ({}, "redact", "redact"),
        ({"secret": "block"}, "redact", "block"),
        ({"secret": "redact"}, "block", "block"),
        ({"secret": "redact"}, "redact", "redact"),
    ],
)
def test_an_obligation_only_ever_makes_it_stricter(acts, act, expected):
    inspecting = found({"acts": acts, "partial": "pass"})
    assert inspecting is not None
    stricter = inspecting.at_least(act)
    assert stricter.acts["secret"] == expected
    assert stricter.holds_partial
    assert stricter.kinds == inspecting.kinds


@pytest.mark.parametrize(
    "inspection",
    [
        {"kinds": []},
        {"kinds": ["weather"]},
        {"acts": {"weather": "report"}},
        {"acts": {"secret": "ignore"}},
        {"max_bytes": 0},
        {"partial": "redact"},
        {"seconds": 0},
        {"enabled": "sometimes"},
        {"rulez": "x"},
        {"max_bytes": (64 << 20) + 1},
        {"tenants": [{"tenant": "Acme Inc"}]},
        {"tenants": [{"tenant": "acme"}, {"tenant": "acme"}]},
        {"roles": [{"role": "a"}, {"role": "a"}]},
        {"regions": ["Germany"]},
    ],
)
def test_what_is_no_setting_is_refused(inspection):
    with pytest.raises(ValidationError):
        found(inspection)


@pytest.mark.parametrize("inspection", [{"seconds": 1}, {"acts": {"secret": "ignore"}}])
def test_a_server_cannot_say_what_only_the_gateway_can(inspection):
    with pytest.raises(ValidationError):
        found({}, inspection)


def test_without_settings_nothing_is_inspected_whoever_could():
    assert guarding_of(None, ThreeRules()).answers is None
    assert guarding_of(None, ThreeRules()).safeguards.sources == ()
