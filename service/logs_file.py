"""The file of ``TALLYSTICK_LOGS``: which logs one process serves, and what each has for itself.

::

    logs:
      - log_id: acme
        tenant: Acme
        origin: log.example/acme
        anchor: s3://acme-anchor/checkpoints
        anchor_retention_days: 2555
      - log_id: globex
        …

Here is the file's form. What a value may be is `service.settings`' part, what two logs must not share that of
`service.separation`.

Source: YAML 1.1 as PyYAML's safe loader reads it, a key that stands twice refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ledger.errors import ConfigError

__all__ = ["LogEntry", "read_logs_file"]

_MAX_BYTES: Final = 1 << 20
_MAX_LOGS: Final = 256
_REQUIRED: Final = ("log_id", "tenant", "origin")
_LOG_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One log of the file.

    Attributes:
        place: Where it stands, for messages: ``logs[0]``.
        log_id: Its id.
        values: Its settings by name, the id among them; not checked any further.
    """

    place: str
    log_id: str
    values: Mapping[str, object]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        seen: list[object] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, "a key stands twice", key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep=deep)


def read_logs_file(path: Path, *, known: frozenset[str]) -> tuple[LogEntry, ...]:
    """Read the file.

    Args:
        path: The file.
        known: Settings that a log may have for itself.

    Raises:
        ConfigError: It cannot be read or is not of this form; the place and the reason, never a value.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the file of TALLYSTICK_LOGS cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"the file of TALLYSTICK_LOGS has more than {_MAX_BYTES} bytes")
    return _entries(_parse(data), known)


def _parse(data: bytes) -> object:
    try:
        return yaml.load(data.decode(), Loader=_Loader)  # noqa: S506  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        # The reader's words may quote the file, which may hold what was not meant for a terminal.
        raise ConfigError(f"the file of TALLYSTICK_LOGS is not sound YAML{line}") from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise ConfigError("the file of TALLYSTICK_LOGS is not sound YAML") from error


def _entries(document: object, known: frozenset[str]) -> tuple[LogEntry, ...]:
    if not isinstance(document, dict) or set(document) != {"logs"}:
        raise ConfigError("the file of TALLYSTICK_LOGS holds one key, logs, and nothing else")
    logs = document["logs"]
    if not isinstance(logs, list) or not 1 <= len(logs) <= _MAX_LOGS:
        raise ConfigError(f"logs: a list of 1 to {_MAX_LOGS} logs")
    return tuple(_entry(f"logs[{position}]", item, known) for position, item in enumerate(logs))


def _entry(place: str, item: object, known: frozenset[str]) -> LogEntry:
    if not isinstance(item, dict):
        raise ConfigError(f"{place}: a mapping of settings")
    for name in item:
        if name not in known:
            told = f"{place}.{name}" if isinstance(name, str) and name.isidentifier() else place
            raise ConfigError(f"{told}: no setting that a log has for itself")
    for name in _REQUIRED:
        if not item.get(name):
            raise ConfigError(f"{place}.{name}: each log names its own")
    log_id = item["log_id"]
    # It becomes part of paths before anything else is looked at.
    if not isinstance(log_id, str) or _LOG_ID.fullmatch(log_id) is None:
        raise ConfigError(f"{place}.log_id: 1 to 63 of a-z, 0-9 and -, the first of them no -")
    return LogEntry(place=place, log_id=log_id, values=item)
