"""What docs/policies.md has a newcomer type, from a bundle that ships to its rollback, against a running service."""

from __future__ import annotations

import re
import shlex

from click.testing import CliRunner, Result

from service.auth import Role
from service.cli.main import cli
from tests.support.repository import ROOT
from tests.support.service import RunningService, start_service

PAGE = (ROOT / "docs" / "policies.md").read_text()


def blocks() -> list[list[list[str]]]:
    """Return the commands of each block of the section, as arguments."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1]
    assert section.startswith("In ten minutes\n")
    found = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [[shlex.split(line, comments=True)[1:] for line in text.replace("\\\n", " ").splitlines()] for text in found]


class Typist:
    """Types commands as one person."""

    def __init__(self, service: RunningService, role: Role, name: str) -> None:
        self._variables = {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": service.token(role, name)}

    def type(self, arguments: list[str], **names: str) -> Result:
        filled = [names.get(argument, argument) for argument in arguments]
        return CliRunner(env=self._variables).invoke(cli, filled)


def test_the_ten_minutes_are_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    author_types, approver_types, responder_types = blocks()
    with start_service(tmp_path / "service") as service:
        author = Typist(service, Role.ADMIN, "author")
        copied, tested, linted, explained, published = (author.type(line) for line in author_types)
        assert [step.exit_code for step in (copied, tested, linted, explained, published)] == [0] * 5, published.stderr
        assert "rules reached" in tested.output
        assert linted.output == "0 findings\n"
        assert explained.output.startswith("PERMIT")
        (revision,) = re.findall(r"\b[0-9a-f]{64}\b", published.output)

        own = author.type(["policy", "review", revision, "--approve"])
        assert own.exit_code != 0, "nobody approves what he published himself"
        approver = Typist(service, Role.APPROVER, "approver")
        status, reviewed, activated = (approver.type(line, REVISION=revision) for line in approver_types)
        assert [step.exit_code for step in (status, reviewed, activated)] == [0, 0, 0], activated.stderr
        assert revision in activated.output

        bundle = service.run(service.services.bundles.active_bundle)
        assert bundle is not None
        decision = service.enforcer().decide_by(bundle, effect="NOT_APPLICABLE")
        service.wait_until_published()
        responder = Typist(service, Role.RESPONDER, "responder")
        *looking, rolled_back = responder_types
        found, replayed, why, impact = (responder.type(line, DECISION_ID=decision) for line in looking)
        assert decision in found.output
        assert replayed.exit_code == 0, replayed.stderr
        assert decision in replayed.output
        assert why.exit_code == 0, why.stderr
        assert impact.exit_code == 0, impact.stderr
        assert approver.type(rolled_back).exit_code == 4, "no bundle was active before"


def test_every_command_of_the_section_is_there_to_be_typed():
    assert [len(block) for block in blocks()] == [5, 3, 5]
    assert all(arguments for block in blocks() for arguments in block)
