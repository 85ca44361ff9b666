"""``tallystick controls``: what ships, and what a verdict is computed from."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from evidence.catalogue import framework_names, load_framework
from service.cli.main import cli
from tests.unit.evidence.test_overlays import OVERLAY


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["controls", *arguments])


def test_every_framework_that_ships_is_listed_with_its_counts() -> None:
    listed = json.loads(run("list", "--json").stdout)["frameworks"]
    assert [one["framework"] for one in listed] == framework_names()
    for one in listed:
        assert one["controls"] == len(load_framework(one["framework"]).controls)
        assert one["direct"] + one["not_tested"] <= one["controls"]
    shown = run("list").stdout
    assert all(name in shown for name in framework_names())


def test_the_controls_of_a_framework_are_listed() -> None:
    result = run("list", "pci-dss")
    assert result.exit_code == 0
    for control in load_framework("pci-dss").controls:
        assert control.id in result.stdout
    value = json.loads(run("list", "pci-dss", "--json").stdout)
    assert [one["id"] for one in value["controls"]] == [one.id for one in load_framework("pci-dss").controls]


def test_a_control_is_shown_with_each_test_in_words() -> None:
    result = run("show", "nist-800-53", "AC-3(13)")
    assert result.exit_code == 0
    assert "you add" in result.stdout
    for test in ("decision-names-its-facts", "replay-agrees", "allowed-only-on-permit"):
        assert load_framework("nist-800-53").tests[test].sentence in result.stdout
    assert "of each decision with: decision.enforcement is allow" in result.stdout
    value = json.loads(run("show", "nist-800-53", "AC-3(13)", "--json").stdout)
    assert value["related"] == []
    assert [one["id"] for one in value["computed"]] == value["tests"]


def test_a_control_is_shown_with_those_of_other_frameworks_that_ask_for_much_the_same() -> None:
    shown = run("show", "pci-dss", "7.3.1").stdout
    assert "subset soc2 CC6.1, confidence high: " in shown
    (one,) = json.loads(run("show", "pci-dss", "7.3.1", "--json").stdout)["related"]
    assert one["end"] == ["soc2", "CC6.1"]
    assert "allowed-only-on-permit" in one["tests"]


def test_tests_of_what_need_not_happen_or_must_not_are_told_as_such() -> None:
    shown = run("show", "soc2", "CC6.1").stdout
    assert "no-key-compromised (if it occurs)" in shown
    assert "must not be so: key.action is compromised" in shown
    assert "at least 1 must be so" in run("show", "soc2", "CC5.2").stdout


def test_a_control_without_a_computed_test_says_why() -> None:
    shown = run("show", "gdpr", "Art.33").stdout
    assert "not tested   the log holds no record of a report to an authority" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "nothing"),
        ("list", "../soc2"),
        ("list", "tests"),
        ("show", "soc2", "CC99"),
        ("show", "soc2", "\x1b[2Jx"),
        ("show", "SOC2", "CC6.1"),
    ],
)
def test_what_is_not_there_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr


def test_an_overlay_is_signed_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALLYSTICK_PASSPHRASE", raising=False)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(OVERLAY, encoding="utf-8")
    keys, other = tmp_path / "keys", tmp_path / "other"
    for folder in (keys, other):
        assert CliRunner().invoke(cli, ["policy", "keygen", str(folder), "--name", "audit.acme"]).exit_code == 0
    envelope, made = tmp_path / "overlay.dsse.json", tmp_path / "acme-soc2.json"
    signed = run("sign", str(overlay), "--keys", str(keys), "--output", str(envelope))
    assert signed.exit_code == 0, signed.stderr
    checking = ("verify", str(overlay), "--signature", str(envelope), "--trust")
    checked = run(*checking, str(keys / "bundle.trust"), "--output", str(made), "--json")
    assert checked.exit_code == 0, checked.stderr
    assert json.loads(checked.stdout)["sha256"] == sha256(made.read_bytes()).hexdigest()
    assert run(*checking, str(other / "bundle.trust")).exit_code == 3
    overlay.write_text(OVERLAY.replace("each quarter", "each year"), encoding="utf-8")
    assert run(*checking, str(keys / "bundle.trust")).exit_code == 1
    overlay.write_text(OVERLAY.replace("CC6.1", "CC6.99"), encoding="utf-8")
    broken = run(*checking, str(keys / "bundle.trust"))
    assert broken.exit_code == 2
    assert "overlay.yaml, line 8, changes[0]: soc2 has no control CC6.99" in broken.stderr
