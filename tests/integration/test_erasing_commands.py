"""What an administrator types to erase, to hold and to let expire, against a running service."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from ledger.commitments import pseudonym
from service.auth import Role
from service.cli.main import main
from tests.support.commands import Finished
from tests.support.ledger import LOG_ID
from tests.support.service import RunningService, start_service

BASIS = "request 4711 under Art. 17"
NOBODYS = "01234567-89ab-7cde-8f01-23456789abcd"

Command = Callable[..., Finished]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    policy = tmp_path / "retention.yaml"
    policy.write_text("vault: {decision: 1d}\n")
    with start_service(tmp_path, retention=policy) as running:
        yield running


@pytest.fixture
def command(service, monkeypatch, capsys) -> Command:
    """Run a command as an administrator of a name."""
    monkeypatch.setenv("TALLYSTICK_URL", service.url)

    def run(*arguments: str, by: str = "anna", role: Role = Role.ADMIN) -> Finished:
        monkeypatch.setenv("TALLYSTICK_TOKEN", service.token(role, by))
        monkeypatch.setattr(sys, "argv", ["tallystick", *arguments])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        said = capsys.readouterr()
        return Finished(status=status, output=said.out, errors=said.err)

    return run


def decide(service: RunningService, name: str) -> None:
    service.enforcer().decide(user=pseudonym(service.services.keys.pseudonym.seed, "user", name))


def test_a_subject_is_held_released_by_two_and_erased(service, command):
    decide(service, "alice")
    placed = json.loads(command("hold", "place", "--subject", "alice", "--reason", "matter 12/2026", "--json").output)
    hold_id = placed["hold_id"]
    refused = command("erase", "--subject", "alice", "--basis", BASIS, "--yes")
    assert (refused.status, refused.output) == (4, "")
    assert hold_id in refused.errors
    assert hold_id in command("hold", "list").output
    assert "somebody else confirms it" in command("hold", "release", hold_id).output
    alone = command("hold", "release", hold_id)
    assert (alone.status, "somebody else" in alone.errors) == (4, True)
    assert "is released" in command("hold", "release", hold_id, by="ben").output
    assert hold_id not in command("hold", "list").output
    erased = command("erase", "--subject", "alice", "--basis", BASIS, "--yes")
    assert erased.status == 0
    assert "3 payloads" in erased.output
    assert "no pack was made of them and nobody opened one" in erased.output


def test_nothing_is_erased_without_a_yes(service, command, monkeypatch):
    decide(service, "alice")
    monkeypatch.setattr("click.confirm", lambda *_args, **_options: (_ for _ in ()).throw(click.Abort()))
    assert command("erase", "--subject", "alice", "--basis", BASIS).status == 130
    assert service.services.catalog.of_type(LOG_ID, "erasure") == []


def test_a_dry_run_of_expiry_shows_the_policy_at_work_and_changes_nothing(service, command):
    decide(service, "alice")
    shown = command("expire", "--dry-run")
    assert shown.status == 0
    assert "nothing was changed" in shown.output
    assert json.loads(command("expire", "--json").output)["classes"] == ["vault:decision:1d"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("erase", "--basis", BASIS, "--yes"), "--subject or --pseudonym"),
        (("erase", "--subject", "alice", "--yes"), "--basis"),
        (("erase", "--subject", "a", "--pseudonym", "5" * 32, "--basis", BASIS, "--yes"), "not both"),
        (("erase", "--pseudonym", "alice", "--basis", BASIS, "--yes"), "32 hexadecimal digits"),
        (("erase", "--subject", "alice", "--basis", "short", "--yes"), "basis"),
        (("hold", "place", "--reason", "matter 12/2026"), "say what to hold"),
        (("hold", "place", "--subject", "alice"), "--reason"),
        (("hold", "place", "--from", "yesterday", "--reason", "matter 12/2026"), "ISO 8601"),
        (("hold", "release", "mine"), "01234567"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_mistyped_is_an_error_of_usage_and_changes_nothing(service, command, arguments, told):
    refused = command(*arguments)
    assert (refused.status, refused.output) == (64, "")
    assert told in refused.errors
    assert service.services.catalog.of_type(LOG_ID, "hold") == []


def test_what_is_not_there_and_who_may_not(command):
    assert command("erase", "--subject", "zoe", "--basis", BASIS, "--yes").status == 4
    assert command("hold", "release", NOBODYS).status == 4
    refused = command("erase", "--subject", "zoe", "--basis", BASIS, "--yes", role=Role.AUDITOR)
    assert (refused.status, "may not" in refused.errors) == (64, True)
