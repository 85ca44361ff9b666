"""How the rows of a projection are stored: names as numbers, words as codes, digests and ids as bytes.

Pure. `record_cells` and `content_cells` are the way in, `record_row`, `rule_row` and `content_row` the way back, and a
test holds that they lead to the same rows. Which numbers names have is kept by `sql_dictionary`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ledger.projection import Row

__all__ = [
    "CODES",
    "NAMED_COLUMNS",
    "Numbers",
    "content_cells",
    "content_row",
    "halves",
    "id_bytes",
    "id_text",
    "names_of",
    "record_cells",
    "record_row",
    "rule_row",
    "stream_of",
    "word_of",
]

CODES: Final[Mapping[str, tuple[str, ...]]] = {
    "decision": ("PERMIT", "DENY", "INDETERMINATE", "NOT_APPLICABLE"),
    "enforcement": ("allow", "deny", "ask", "kill"),
    "mode": ("enforce", "observe"),
    "status": ("completed", "failed", "cancelled", "not_forwarded", "unknown"),
}
"""The words of each closed vocabulary; the code of a word is its place, which it keeps for ever."""

NAMED_COLUMNS: Final = ("record_type", "agent", "server", "method", "tool", "reason", "bundle_revision")
_CODE_OF: Final[Mapping[str, Mapping[object, int | None]]] = {
    column: {None: None, **{word: code for code, word in enumerate(words)}} for column, words in CODES.items()
}
_HALVES: Final = struct.Struct(">qq")
_NOTHING: Final = (None, None)
_NO_NUMBER: Final = -1
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a log, of names and of streams; more may be added while somebody reads.

    Attributes:
        log_no: The log's own.
        names: Number by name; nothing has none.
        streams: Number by enforcer and epoch.
    """

    log_no: int
    names: dict[object, int | None] = field(default_factory=lambda: {None: None})
    streams: dict[tuple[str, str], int] = field(default_factory=dict)


def id_bytes(record_id: str) -> bytes | None:
    """Return the 16 bytes of a record id, or None for a text that is no record's id."""
    return bytes.fromhex(record_id.replace("-", "")) if _ID.fullmatch(record_id) else None


def id_text(value: bytes) -> str:
    """Return a record id as records write it; the inverse of `id_bytes`."""
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def halves(pseudonym: object) -> tuple[int, int] | tuple[None, None]:
    """Return a pseudonym or fingerprint, 32 hexadecimal digits, as two signed integers; nothing as nothing."""
    if pseudonym is None:
        return _NOTHING
    key, rest = _HALVES.unpack(bytes.fromhex(str(pseudonym)))
    return key, rest


def _whole(key: object, rest: object) -> str | None:
    if key is None and rest is None:
        return None
    # Half of one is no pseudonym; the auditor sees that it differs, and goes on.
    halves = [half if isinstance(half, int) else 0 for half in (key, rest)]
    return _HALVES.pack(*halves).hex()


def names_of(rows: Mapping[str, Iterable[Row]]) -> Iterator[str]:
    """Yield the names that the rows of one record use, some perhaps twice."""
    for row in rows["records"]:
        for column in NAMED_COLUMNS:
            if (name := row[column]) is not None:
                yield str(name)
    for row in rows["decision_rules"]:
        yield str(row["rule"])


def stream_of(row: Row) -> tuple[str, str]:
    """Return the stream that a row of ``records`` belongs to."""
    return str(row["enforcer_id"]), str(row["epoch"])


def record_cells(row: Row, numbers: Numbers, received_ms: int) -> tuple[object, ...]:
    """Return what is stored of a row of ``records``: every column of the table but the leaf index, which is the first.

    Raises:
        KeyError: A name or stream has no number, a word no code.
    """
    names = numbers.names
    decision_id, trace_id = row["decision_id"], row["trace_id"]
    return (
        row["time_ms"],
        row["seq"],
        received_ms,
        *halves(row["session"]),
        *halves(row["fingerprint"]),
        *halves(row["user"]),
        numbers.log_no,
        numbers.streams[stream_of(row)],
        names[row["record_type"]],
        names[row["agent"]],
        names[row["server"]],
        names[row["method"]],
        names[row["tool"]],
        names[row["reason"]],
        names[row["bundle_revision"]],
        _CODE_OF["decision"][row["decision"]],
        _CODE_OF["enforcement"][row["enforcement"]],
        _CODE_OF["mode"][row["mode"]],
        _CODE_OF["status"][row["status"]],
        bytes.fromhex(str(row["record_id"]).replace("-", "")),
        row["leaf_hash"],
        None if decision_id is None else bytes.fromhex(str(decision_id).replace("-", "")),
        None if trace_id is None else bytes.fromhex(str(trace_id)),
    )


_PLAIN: Final = ("leaf_index", "time_ms", "seq")
_HALVED: Final = ("session", "fingerprint", "user")


def word_of(column: str, code: int) -> str:
    """Return the word that a code stands for; one that nobody wrote is no word, which a comparison sees."""
    words = CODES[column]
    return words[code] if 0 <= code < len(words) else f"code {code}"


def record_row(
    stored: Mapping[str, object],
    log_id: str,
    names: Mapping[int, str],
    streams: Mapping[int, tuple[str, str]],
) -> Row:
    """Return a row of ``records`` as `ledger.projection.project` makes it.

    A number that no dictionary has is a value that no record has, so that a comparison sees it.

    Args:
        stored: The table's columns by name.
        log_id: The log.
        names: Name by number.
        streams: Enforcer and epoch by number.
    """
    row: dict[str, object] = {"log_id": log_id, **{column: stored[column] for column in _PLAIN}}
    for column in NAMED_COLUMNS:
        number = stored[column]
        row[column] = None if number is None else names.get(_int(number), f"number {number}")
    for column in CODES:
        code = stored[column]
        row[column] = None if code is None else word_of(column, _int(code))
    for column in _HALVED:
        row[column] = _whole(stored[f"{column}_key"], stored[f"{column}_rest"])
    row["enforcer_id"], row["epoch"] = streams.get(_int(stored["stream_no"]), (None, None))
    row["leaf_hash"] = _bytes(stored["leaf_hash"])
    row["record_id"] = id_text(_bytes(stored["record_id"]))
    decision_id, trace_id = stored["decision_id"], stored["trace_id"]
    row["decision_id"] = None if decision_id is None else id_text(_bytes(decision_id))
    row["trace_id"] = None if trace_id is None else _bytes(trace_id).hex()
    return row


def rule_row(log_id: str, leaf_index: int, rule: int, names: Mapping[int, str]) -> Row:
    """Return a row of ``decision_rules`` as `ledger.projection.project` makes it."""
    return {"log_id": log_id, "leaf_index": leaf_index, "rule": names.get(rule, f"number {rule}")}


def content_cells(row: Row, log_no: int) -> tuple[object, ...]:
    """Return what is stored of a row of ``contents``: every column of the table but the leaf index."""
    return (*halves(row["fingerprint"]), log_no)


def content_row(log_id: str, leaf_index: int, key: object, rest: object) -> Row:
    """Return a row of ``contents`` as `ledger.projection.project` makes it."""
    return {"log_id": log_id, "leaf_index": leaf_index, "fingerprint": _whole(key, rest)}


def _int(value: object) -> int:
    """Return a cell as a number; what is none becomes one that nothing has: SQLite keeps whatever it is given."""
    return value if isinstance(value, int) else _NO_NUMBER


def _bytes(value: object) -> bytes:
    """Return a cell as bytes; what is none becomes none, which no record has."""
    return bytes(value) if isinstance(value, bytes | memoryview) else b""
