"""``tallystick opa``: what an operator does for an OPA that reports here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import click

from service.cli.client import ServiceClient, service_options
from service.cli.output import echo_json, json_option, say, with_exit_codes

__all__ = ["opa"]

_COUNTS: Final = ("taken", "duplicates", "conflicts", "unreadable")
_MAX_EVENTS: Final = 500
_MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one request; a single larger event goes alone."""


@click.group()
def opa() -> None:
    """An OPA that decides by itself and hands in its decision log."""


@opa.command("hand-in", short_help="Hand in the decision log of an OPA's console.")
@click.argument("file", type=click.File("rb"))
@service_options
@json_option
@with_exit_codes
def hand_in(file: BinaryIO, url: str, token: str | None, *, as_json: bool) -> None:
    """Hand in the events that an OPA wrote to FILE (- for standard input) with ``decision_logs.console: true``.

    What had arrived already is known again: nothing is recorded twice.
    """
    from service.opa_console import console_events

    client = ServiceClient(url, token)
    counts: Counter[str] = Counter()
    for body in _uploads(console_events(file)):
        answer = client.request("POST", "/logs", content=body, headers={"Content-Type": "application/json"}).json()
        counts.update({name: answer[name] for name in _COUNTS})
    told = {name: counts[name] for name in _COUNTS}
    if as_json:
        echo_json(told)
    else:
        say(", ".join(f"{number} {name}" for name, number in told.items()))


def _uploads(events: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bodies of requests."""
    waiting: list[bytes] = []
    size = 0
    for event in events:
        if waiting and (len(waiting) == _MAX_EVENTS or size + len(event) > _MAX_BYTES):
            yield b"[" + b",".join(waiting) + b"]"
            waiting, size = [], 0
        waiting.append(event)
        size += len(event)
    if waiting:
        yield b"[" + b",".join(waiting) + b"]"
