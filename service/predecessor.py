"""The predecessor of a log: a file beside the new log's keys, from which its first start makes a record.

``predecessor.json`` holds the old log's last checkpoint as it is, since the new log commits to its very bytes::

    {"format": "tallystick.predecessor/1", "checkpoint": "…", "reason": "key_lost"}
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from ledger.bodies import Succession
from ledger.body_fields import Name
from ledger.errors import ConfigError, MalformedError
from ledger.files import create_durably
from ledger.records import Record
from ledger.succession import commitment_of, find_succession
from ledger.trust import TrustPolicy

__all__ = ["PREDECESSOR_FILE", "load_predecessor", "require_predecessor", "save_predecessor", "with_predecessor"]

PREDECESSOR_FILE: Final = "predecessor.json"
"""Beside the new log's keys."""
_MAX_CHECKPOINT_CHARS: Final = 64_000


class _Predecessor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["tallystick.predecessor/1"]
    checkpoint: Annotated[str, msgspec.Meta(max_length=_MAX_CHECKPOINT_CHARS)]
    reason: Name


def save_predecessor(directory: Path, checkpoint: bytes, *, reason: str) -> None:
    """Write the file beside new keys.

    Raises:
        MalformedError: The checkpoint is no text.
        ConflictError: Another stands there.
        OSError: The file system failed.
    """
    try:
        text = checkpoint.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("a checkpoint is text") from error
    document = _Predecessor(format="tallystick.predecessor/1", checkpoint=text, reason=reason)
    create_durably(directory / PREDECESSOR_FILE, msgspec.json.encode(document) + b"\n")


def load_predecessor(directory: Path) -> Succession | None:
    """Return what a new log commits to, or None if it succeeds no other.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = directory / PREDECESSOR_FILE
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Predecessor)
        return commitment_of(document.checkpoint.encode(), reason=document.reason)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeError, MalformedError) as error:
        raise ConfigError(f"{PREDECESSOR_FILE} beside the keys cannot be used") from error


def require_predecessor(wanted: Succession | None, record_at: Callable[[int], Record], size: int) -> None:
    """Refuse to go on with a log that was opened with another predecessor than the file names.

    Raises:
        ConfigError: It was.
        LedgerError: The log could not be read.
    """
    if wanted is None:
        return
    found = find_succession(record_at, size)
    if found is None or found[1] != wanted:
        raise ConfigError(f"{PREDECESSOR_FILE} names a predecessor with which this log was not opened")


def with_predecessor(policy: TrustPolicy, old: TrustPolicy, origin: str) -> TrustPolicy:
    """Return a policy for a new log that knows the keys of its predecessor too, for the checkpoints that it signed."""
    return TrustPolicy(logs=(*policy.logs, *old.log_keys(origin)))
