"""``docs/safeguards.md`` lets an operator tune each: its settings are accepted, and all of them are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcement.config import GatewayConfig, ServerSettings
from enforcement.config_approvals import ApprovalRule, ApprovalSettings
from enforcement.config_inspection import InspectionRules, InspectionSettings, RoleSettings, TenantSettings
from enforcement.config_pins import PinningSettings, ToolPinSettings
from enforcement.config_profiles import ProfileSettings
from enforcement.config_types import Settings
from policies.signals import FINDING_KINDS
from tests.support.gateway import config_of
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "safeguards.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
DEFAULTS = next(block for block in BLOCKS if "profiles" in block)
MODELS: tuple[type[Settings], ...] = (
    PinningSettings,
    ToolPinSettings,
    InspectionSettings,
    InspectionRules,
    TenantSettings,
    RoleSettings,
    ApprovalSettings,
    ApprovalRule,
    ProfileSettings,
)


def accepted(tmp_path: Path, block: dict[str, Any]) -> GatewayConfig:
    servers = [{"url": "http://127.0.0.1:9001/mcp", **server} for server in block.get("servers", [])]
    more = {"servers": servers} if servers else {}
    return config_of(tmp_path, "http://127.0.0.1:8787", "http://127.0.0.1:9001", **{**block, **more})


def test_every_block_of_settings_is_accepted(tmp_path: Path) -> None:
    assert len(BLOCKS) >= 4
    for block in BLOCKS:
        assert accepted(tmp_path, block)


@pytest.mark.parametrize("name", ["pinning", "inspection", "approvals", "profiles"])
def test_what_stands_as_a_default_is_one_and_whoever_leaves_it_out_gets_the_same(tmp_path: Path, name: str) -> None:
    said = getattr(accepted(tmp_path, {name: DEFAULTS[name]}), name)
    assert said == getattr(accepted(tmp_path, {name: {}}), name)
    assert said.model_fields_set == set(DEFAULTS[name])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_setting_is_named(model: type[Settings]) -> None:
    code = " ".join(re.findall(r"```yaml\n.*?```|`[^`\n]+`", TEXT, re.DOTALL))
    missing = [name for name in model.model_fields if not re.search(rf"\b{name}\b", code)]
    assert missing == []


def test_every_kind_of_finding_is_explained_and_every_reason_that_the_code_gives_for_a_quarantine() -> None:
    for kind in FINDING_KINDS:
        assert f"| `{kind}` |" in TEXT
    given = set(
        re.findall(r'(?:reasons\.add\(|reasons = \{)"(\w+)"', (ROOT / "enforcement" / "pin_rules.py").read_text())
    )
    assert given >= {"look_alike", "renamed", "shadows"}
    assert [reason for reason in sorted(given) if f"| `{reason}` |" not in TEXT] == []


def test_without_settings_every_safeguard_is_off(tmp_path: Path) -> None:
    config = accepted(tmp_path, {})
    assert (config.inspection, config.approvals, config.profiles) == (None, None, None)
    assert ServerSettings(name="crm", url="http://127.0.0.1:9001/mcp").pins.mode == "off"
