"""Watching a process's system calls: what was synced before what was said.

`trace` runs a command under strace and returns its calls, `traced` is for one that goes on; `said_too_early` names the
answers that no sync preceded. The parser keeps apart when a call began and when it ended: a sync counts once it has
ended, an answer from its beginning.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

_WATCHED = ("fsync", "fdatasync", "write", "pwrite64", "writev", "pwritev", "sendto", "sendmsg")
_SYNCS = ("fsync", "fdatasync")
_TIMEOUT_SECONDS = 60

_LINE = re.compile(r"(?P<process>\d+) +(?P<rest>.*)")
_WHOLE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?: .*)?")
_BEGUN = re.compile(r"(?P<name>\w+)\((?P<arguments>.*?) ?<unfinished \.\.\.>")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?: .*)?")
_DESCRIPTOR = re.compile(r"(?P<number>\d+)<(?P<path>.*?)>(?:,|\)|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call.

    Attributes:
        process: Id of the process or thread.
        name: Such as ``fdatasync``.
        descriptor: Number of its first argument, if that is a file descriptor.
        path: What the descriptor stands for, as strace says; empty if it is none.
        arguments: All arguments as text.
        began: Line of the trace where it began.
        ended: Line where it ended, or None if it never did.
        result: What it returned, or None.
    """

    process: int
    name: str
    descriptor: int | None
    path: str
    arguments: str
    began: int
    ended: int | None = None
    result: int | None = None


def find_strace() -> str:
    """Return the program; a machine without it is an error with advice, never a skip."""
    program = shutil.which("strace")
    if program is None:
        raise RuntimeError("these tests watch system calls: install strace (Debian: apt-get install strace)")
    return program


def parse(text: str) -> list[Call]:
    """Read a trace made with ``-f -y``; calls in the order in which they began."""
    calls: list[Call] = []
    open_calls: dict[tuple[int, str], int] = {}
    for number, line in enumerate(text.splitlines()):
        outer = _LINE.fullmatch(line)
        if outer is None:
            continue
        process, rest = int(outer["process"]), outer["rest"]
        if resumed := _RESUMED.fullmatch(rest):
            position = open_calls.pop((process, resumed["name"]))
            begun = calls[position]
            arguments = begun.arguments + resumed["arguments"]
            calls[position] = replace(begun, arguments=arguments, ended=number, result=_result(resumed["result"]))
        elif begun_now := _BEGUN.fullmatch(rest):
            open_calls[process, begun_now["name"]] = len(calls)
            calls.append(_call(process, begun_now["name"], begun_now["arguments"], number))
        elif whole := _WHOLE.fullmatch(rest):
            call = _call(process, whole["name"], whole["arguments"], number)
            calls.append(replace(call, ended=number, result=_result(whole["result"])))
    return calls


def _result(text: str) -> int | None:
    return None if text == "?" else int(text)


def _call(process: int, name: str, arguments: str, number: int) -> Call:
    descriptor = _DESCRIPTOR.match(arguments)
    return Call(
        process=process,
        name=name,
        descriptor=None if descriptor is None else int(descriptor["number"]),
        path="" if descriptor is None else descriptor["path"],
        arguments=arguments,
        began=number,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What a traced command left.

    Attributes:
        status: Its exit status; minus the signal's number if one ended it.
        output: Its standard output.
        errors: Its standard error.
        calls: Its system calls, in the order in which they began.
    """

    status: int
    output: str
    errors: str
    calls: list[Call]


def traced(output: Path, *, inject: str | None = None) -> list[str]:
    """Return what goes before a command so that strace writes its trace; for what is started and goes on.

    Signals are for the command, or its whole group: strace itself does not listen to them.
    """
    options = ["-f", "-y", "-qq", "-s", "200", "-e", f"trace={','.join(_WATCHED)}", "-o", str(output)]
    # The filter in the kernel makes watching cheap, and keeps signals from being injected.
    options += ["--seccomp-bpf"] if inject is None else ["-e", f"inject={inject}"]
    return [find_strace(), *options]


def trace(command: Sequence[str], output: Path, *, cwd: Path, inject: str | None = None) -> Traced:
    """Run a command under strace.

    Args:
        command: Program and arguments.
        output: File for the trace.
        cwd: Where it runs.
        inject: A fault for strace to inject, such as ``pwrite64:signal=KILL:when=3``.
    """
    done = subprocess.run(
        [*traced(output, inject=inject), *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    calls = parse(output.read_text(errors="replace"))
    return Traced(status=done.returncode, output=done.stdout, errors=done.stderr, calls=calls)


def said_too_early(
    calls: Sequence[Call], is_answer: Callable[[Call], bool], is_store: Callable[[str], bool]
) -> list[Call]:
    """Return the answers that left before what they speak of was durable.

    An answer is in time if, since the one before it, something was written to the store, and after the last of these
    writes a sync of the same file succeeded and ended before the answer began. For requests that are made one after the
    other.

    Args:
        calls: In the order in which they began.
        is_answer: Tells a call that answers.
        is_store: Tells the path of a file that must be durable.
    """
    early: list[Call] = []
    previous = -1
    for answer in filter(is_answer, calls):
        since = [call for call in calls if previous < call.began < answer.began and is_store(call.path)]
        writes = [call for call in since if call.name not in _SYNCS]
        if not writes or any(not _synced(write, since, answer) for write in writes):
            early.append(answer)
        previous = answer.began
    return early


def _synced(write: Call, calls: Sequence[Call], answer: Call) -> bool:
    return any(
        call.name in _SYNCS
        and call.path == write.path
        and call.result == 0
        and write.ended is not None
        and call.began > write.ended
        and call.ended is not None
        and call.ended < answer.began
        for call in calls
    )
