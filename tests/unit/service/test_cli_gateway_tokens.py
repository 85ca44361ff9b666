"""``tallystick gateway token``: the token is shown once, and a gateway that takes the lines over knows it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from enforcement.authenticator import Authenticator
from enforcement.metrics import Metrics
from ledger.clock import SimulatedClock
from service.cli.main import cli
from tests.support.gateway import config_of
from tests.support.gateway_keys import NOON_MS

FULL = [
    "--agent",
    "Finance-Bot",
    "--user",
    "alice",
    "--role",
    "a",
    "--role",
    "b",
    "--name",
    "n",
    "--until",
    "2099-01-01",
]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["gateway", "token", *arguments])
    return result.exit_code, result.output


def test_a_gateway_knows_the_token_by_the_lines_that_are_printed(tmp_path: Path) -> None:
    code, output = run(*FULL)
    assert code == 0
    first, second, lines = output.split("\n", 2)
    token = first.rpartition(" ")[2]
    assert "principals" in second
    assert token not in lines
    (principal,) = yaml.safe_load(lines)
    config = config_of(tmp_path, "http://x", "http://x/mcp", principals=[principal])

    async def identify() -> object:
        async with Authenticator(config, SimulatedClock(NOON_MS), Metrics()) as authenticator:
            return await authenticator.identify(
                [(b"authorization", f"Bearer {token}".encode())], None, server="finance"
            )

    known = asyncio.run(identify())
    assert (getattr(known, "agent", None), getattr(known, "roles", None)) == ("Finance-Bot", ("a", "b"))


def test_programs_get_the_same_as_json() -> None:
    code, output = run(*FULL, "--json")
    made = json.loads(output)
    assert code == 0
    assert made["principal"] == {
        "token_sha256": hashlib.sha256(made["token"].encode()).hexdigest(),
        "agent": "Finance-Bot",
        "user": "alice",
        "roles": ["a", "b"],
        "name": "n",
        "not_after": "2099-01-01T00:00:00Z",
    }
    assert len(made["token"]) >= 43


def test_two_tokens_differ_and_what_is_left_out_does_not_stand_in_the_lines() -> None:
    first, second = (json.loads(run("--agent", "Bot", "--json")[1]) for _ in range(2))
    assert first["token"] != second["token"]
    assert first["principal"].keys() == {"token_sha256", "agent"}


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--agent", "a b"], "--agent"),
        (["--agent", "Bot", "--role", ""], "--role"),
        (["--agent", "Bot", "--name", "a b"], "--name"),
        (["--agent", "Bot", "--user", ""], "--user"),
        (["--agent", "Bot", "--until", "tomorrow"], "--until"),
        ([], "--agent"),
    ],
)
def test_what_cannot_stand_in_a_configuration_is_refused_by_the_options_name(arguments: list[str], option: str) -> None:
    code, output = run(*arguments)
    assert code in (64, 2)
    assert option in output
