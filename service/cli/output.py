"""Exit codes, one-line errors, and printing for people or for programs (``--json``)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import click

from evidence.verification import status_of
from ledger.errors import ConfigError, TallystickError
from ledger.legible import legible_text

__all__ = [
    "ExitCode",
    "counted",
    "echo_json",
    "exit_code",
    "in_words",
    "json_option",
    "program",
    "save_new",
    "say",
    "shown_path",
    "table",
    "with_exit_codes",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class ExitCode(IntEnum):
    """What a command's exit status says."""

    OK = 0
    FAILED = 1
    MALFORMED = 2
    TRUST_NOT_MET = 3
    UNCHECKED = 4
    CONDITION_HIT = 5
    USAGE = 64


def exit_code(error: TallystickError) -> ExitCode:
    """Return the exit status that an error stands for; the verifier's statuses, and usage."""
    return ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode(status_of(error))


def _printable(line: str) -> str:
    """Return a line in which nothing moves the cursor or turns the text; letters of any language stay."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def _leave(lines: Iterable[str], code: ExitCode) -> NoReturn:
    for line in lines:
        click.echo(f"tallystick: {_printable(' '.join(line.split()))}", err=True)
    sys.exit(code)


def _lines(error: TallystickError) -> list[str]:
    """Return the lines of an error: one for each fault of a configuration, for any other error one."""
    message = str(error)
    faults = [line for line in message.splitlines() if line.strip()] if type(error) is ConfigError else []
    return faults or [message]


def with_exit_codes(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn the core's errors, and those of files, into a line on standard error and an exit status.

    A configuration with several faults has a line for each.
    """

    @wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except TallystickError as error:
            _leave(_lines(error), exit_code(error))
        except BrokenPipeError:
            # The reader of our output went away; there is nobody left to tell.
            sys.stderr.close()
            sys.exit(ExitCode.OK)
        except OSError as error:
            about = "" if error.filename is None else f": {error.filename}"
            _leave([f"{error.strerror or type(error).__name__}{about}"], ExitCode.UNCHECKED)

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def counted(number: int, plural: str) -> str:
    """Return a number with its noun; ``plural`` is an English one that ends in s."""
    if number != 1:
        return f"{number} {plural}"
    return f"1 {plural.removesuffix('ies')}y" if plural.endswith("ies") else f"1 {plural.removesuffix('s')}"


def in_words(reason: str) -> str:
    """Return what a validation says; a regular expression is no answer to somebody who typed a command."""
    return "is not of the right form" if reason.startswith("String should match pattern") else reason


def shown_path(path: Path) -> Path:
    """Return a path as somebody would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def program() -> str:
    """Return how this program is called, for commands that can be copied: by its name where that is enough."""
    called = Path(sys.argv[0])
    # A shell that found the program by its name passes the whole path on; who typed a path types it again.
    if called.is_absolute() and shutil.which(called.name) == str(called):
        return called.name
    return str(shown_path(called.absolute()))


def say(text: str = "") -> None:
    """Print text for people, line by line; what it quotes of others is not obeyed by the terminal."""
    click.echo("\n".join(map(_printable, text.split("\n"))))


def save_new(path: Path, data: bytes, option: str) -> None:
    """Write a file that is not there yet.

    Raises:
        ConfigError: It is there; another name can be given with the option.
    """
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise ConfigError(f"{path} exists; name another file with {option}") from None


def echo_json(value: object) -> None:
    """Print a value for programs."""
    # A lone surrogate, from a name that is no UTF-8, becomes the escape that JSON has for it.
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    click.echo(text.encode("utf-8", "backslashreplace").decode())


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns; what is not plainly legible in the cells is written by code point, not obeyed."""
    shown = [[legible_text(str(cell)) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in shown)]) for i, name in enumerate(header)]
    click.echo("  ".join(name.upper().ljust(width) for name, width in zip(header, widths, strict=True)).rstrip())
    for row in shown:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
