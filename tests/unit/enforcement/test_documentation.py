"""``docs/enforcement.md`` says what is so: its configuration is accepted, its figures are the defaults."""

from __future__ import annotations

import re

import pytest

from enforcement.config import BundleSettings, GatewayConfig, Limits, RecordingSettings, SessionSettings
from enforcement.config_files import parse_config, parse_servers
from enforcement.config_windows import WindowSettings
from enforcement.refusals import ErrorCode, RefusalReason
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "enforcement.md").read_text()
YAML, SERVERS, *_ = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_configuration_of_the_page_is_accepted() -> None:
    config = parse_config(YAML)
    assert config.servers[0].tools[1].recording == "available"
    assert config.networks[1].label == "coffee-shop"


def test_the_list_of_servers_of_the_page_is_accepted() -> None:
    finance, tickets = parse_servers(SERVERS)
    assert (finance.owner, finance.mode, tickets.owner, tickets.mode) == ("payments", "observe", None, "enforce")


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("limits", Limits()),
        ("recording", RecordingSettings()),
        ("bundles", BundleSettings()),
        ("sessions", SessionSettings()),
        ("windows", WindowSettings()),
    ],
)
def test_the_figures_of_the_page_are_the_defaults_and_all_of_them(name: str, defaults: object) -> None:
    config = parse_config(YAML)
    assert getattr(config, name) == defaults
    assert getattr(config, name).model_fields_set == type(defaults).model_fields.keys()  # type: ignore[attr-defined]  # pydantic


def test_every_setting_is_on_the_page() -> None:
    for model in GatewayConfig.model_fields:
        assert re.search(rf"^{model}:", YAML, re.MULTILINE), model


def test_what_the_page_says_is_needed_is_needed() -> None:
    needed = {name for name, field in GatewayConfig.model_fields.items() if field.is_required()}
    (sentence,) = re.findall(r"Only (`enforcer_id`.*?) are\s+needed", TEXT, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == needed


def test_every_reason_and_code_is_on_the_page() -> None:
    for reason in RefusalReason:
        assert f"`{reason}`" in TEXT
    for name, code in vars(ErrorCode).items():
        if not name.startswith("_"):
            assert str(code) in TEXT, name
