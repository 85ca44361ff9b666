"""What two logs of one installation must not share, so that no tenant's evidence rests on another's.

Places are compared as the file system resolves them. A place inside another is shared as well: whoever moves, backs up
or deletes one log's folder would take the other's along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import ConfigError

if TYPE_CHECKING:
    from service.keyset import KeySet
    from service.settings import Settings

__all__ = ["require_apart", "require_own_keys"]


def require_apart(logs: Sequence[Settings]) -> None:
    """Refuse logs that share an id, an origin or a place.

    Raises:
        ConfigError: Which two, and what they share.
    """
    # INVARIANT 12: one log per tenant; nothing of one is reached by the way to another.
    for first, second in combinations(logs, 2):
        if first.log_id == second.log_id:
            raise ConfigError(f"two logs have the id {first.log_id}")
        for what, mine, other in _pairs(first, second):
            if _within(mine, other) or _within(other, mine):
                raise ConfigError(f"the logs {first.log_id} and {second.log_id} share {what}; give each its own")


def _pairs(first: Settings, second: Settings) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Yield what must differ, as paths whose parts lead from the whole to the single."""
    yield "the origin", (first.origin,), (second.origin,)
    yield "the key directory, and with it vault and signatures", _folder(first.keys_dir), _folder(second.keys_dir)
    yield "the data directory", _folder(first.data_dir), _folder(second.data_dir)
    yield "the place of the tiles", _tiles(first), _tiles(second)
    yield "the place of the anchor", _anchor(first), _anchor(second)


def _folder(path: Path) -> tuple[str, ...]:
    return path.resolve().parts


def _anchor(settings: Settings) -> tuple[str, ...]:
    return _store(settings.effective_anchor, settings.anchor_endpoint)


def _tiles(settings: Settings) -> tuple[str, ...]:
    return _store(settings.effective_tiles, settings.tiles_endpoint)


def _store(uri: str, endpoint: str | None) -> tuple[str, ...]:
    kind, _, place = uri.partition(":")
    if kind == "directory":
        return (kind, *_folder(Path(place)))
    return (kind, endpoint or "", *(part for part in place.split("/") if part))


def _within(place: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return other[: len(place)] == place


def require_own_keys(log_id: str, keys: KeySet, others: Sequence[tuple[str, KeySet]]) -> None:
    """Refuse keys of which another log has a copy.

    Raises:
        ConfigError: Which log, and what kind of key.
    """
    mine = {key.public_key or key.key_id.encode(): key.purpose for key in keys.all()}
    for other_id, other in others:
        for key in other.all():
            purpose = mine.get(key.public_key or key.key_id.encode())
            if purpose is not None:
                raise ConfigError(f"the logs {other_id} and {log_id} share a {purpose} key; make new keys for one")
