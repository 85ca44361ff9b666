"""The decision log that an OPA also writes to its console, one event a line, as the events that it uploads.

Pure. With ``decision_logs.console: true`` a line stands before the decision is answered, whatever becomes of the OPA:
what it holds in memory when it is killed can be handed in from there. A line is the event with four members of the
logger's own; without them it is, value by value, what is uploaded, so that an event which had arrived is known again.

Source: Open Policy Agent, "Decision Logs", section "Local Decision Logs"; release 1.22.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from ledger.errors import MalformedError

__all__ = ["console_events"]

_TYPE: Final = b'"openpolicyagent.org/decision_logs"'
_OF_THE_LOGGER: Final = ("level", "msg", "time", "type")
_LINE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def console_events(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the events among lines that an OPA wrote; its other messages are passed over.

    So is a line without an end: OPA was killed in the middle of it, and the decision was not answered.

    Args:
        lines: As written, in OPA's format ``json``, each with its line feed.

    Raises:
        MalformedError: A line that speaks of a decision is not whole; its number is in the message, counted from 1.
    """
    for number, line in enumerate(lines, 1):
        if _TYPE not in line or not line.endswith(b"\n"):
            continue
        try:
            members = _LINE.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise MalformedError(f"line {number} is not a whole event") from error
        if bytes(members.get("type", b"")) == _TYPE:
            yield msgspec.json.encode({name: raw for name, raw in members.items() if name not in _OF_THE_LOGGER})
