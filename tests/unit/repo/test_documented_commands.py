"""Every command that a document tells the reader to type: it exists, and takes the options that are shown.

What the README's own commands do is run in `tests/e2e/test_demo.py`; here is what is true of all documents at once.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from service.cli.main import cli
from tests.support.repository import ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "scripts" / "run.sh", ROOT / "service/demo/run.py"]
)
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^```(?:sh|console)?\n(.*?)^```$|^((?: {4}\S.*\n)+)", re.MULTILINE | re.DOTALL)
SUBSTITUTION = re.compile(r"\$\(([^()]+)\)")
START = re.compile(r"(?:\.venv/bin/)?tallystick (?=[a-z])")


def commands(text: str) -> Iterator[str]:
    """Yield what stands in code blocks and spans, line by line; continued lines as one, without comments."""
    pieces = [match[1] or match[2] for match in BLOCK.finditer(text)]
    pieces += SPAN.findall(BLOCK.sub("", text))
    for piece in pieces:
        for line in piece.replace("\\\n", " ").splitlines():
            shown = line.partition(" #")[0]
            yield from (part.strip() for part in [*shown.split("&&"), *SUBSTITUTION.findall(shown)])


def ours(text: str) -> list[list[str]]:
    """Return the arguments of every `tallystick` command of a text."""
    found = [command for command in commands(text) if START.match(command)]
    return [shlex.split(START.sub("", command, count=1)) for command in found]


def below(command: click.Command, name: str) -> click.Command | None:
    """Return the command of a group that has a name."""
    return command.get_command(click.Context(command), name) if isinstance(command, click.Group) else None


def fault(arguments: list[str]) -> str | None:
    """Return what is wrong with a command: a name or an option that there is not."""
    command: click.Command = cli
    for argument in arguments:
        if argument == "--":  # what follows is another program's
            return None
        name = argument.strip("[]")
        if name.startswith("--"):
            # A group that has a default takes that command's options.
            command = below(command, getattr(command, "default", "")) or command
            options = {option for parameter in command.params for option in parameter.opts}
            if name not in options | {"--help"}:
                return f"{command.name} has no option {name}"
        elif (next_one := below(command, name)) is not None:
            command = next_one
        elif isinstance(command, click.Group) and not command.invoke_without_command:
            return f"{command.name} has no command {name}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_shows_exists_with_its_options(document):
    assert [fault(arguments) for arguments in ours((ROOT / document).read_text()) if fault(arguments)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_that_a_document_shows_exists(document):
    shown = [command.split()[1] for command in commands((ROOT / document).read_text()) if command.startswith("make ")]
    assert set(shown) - set(TARGET.findall((ROOT / "Makefile").read_text())) == set()


def test_the_commands_of_the_readme_and_of_a_first_start_are_found():
    assert ours((ROOT / "README.md").read_text()) == [
        ["verify", ".demo/evidence-pack.zip", "--trust", ".demo/trust.policy"],
        ["verify", ".demo/evidence-pack.zip"],
    ]
    first = [arguments[:2] for arguments in ours((ROOT / "docs" / "operations.md").read_text())]
    for expected in (["keys", "init"], ["serve"], ["keys", "token"], ["policy", "publish"], ["policy", "activate"]):
        assert expected in first
    continued = ours((ROOT / "docs" / "enforcement.md").read_text())
    assert any("--keys-dir" in arguments and arguments[:2] == ["gateway", "init"] for arguments in continued)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`tallystick verifies PACK`", "cli has no command verifies"),
        ("`tallystick verify PACK --trusted FILE`", "verify has no option --trusted"),
        ("    export TOKEN=$(tallystick keys coin --role admin)\n", "keys has no command coin"),
        ("    tallystick keys make DIR   # once\n", "keys has no command make"),
        ("```sh\ntallystick gateway init ./gw \\\n    --identity x\n```", "init has no option --identity"),
        ("```\ntallystick serve && tallystick policy enact REVISION\n```", "policy has no command enact"),
    ],
)
def test_a_command_that_there_is_not_is_found(text, expected):
    assert [fault(arguments) for arguments in ours(text) if fault(arguments)] == [expected]
