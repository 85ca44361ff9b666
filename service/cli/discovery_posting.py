"""Handing a scan in: what `tallystick discover` found as ``POST /v1/discoveries`` takes it.

What servers and files say is a stranger's text of any length; here it is cut to what the route takes, and what is no
text is written out, so that no server can keep a scan from being recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enforcement.discovery.method import method_digest
from ledger.errors import ConfigError
from service.version import VERSION

if TYPE_CHECKING:
    from enforcement.discovery.comparison import Known, Sighting
    from enforcement.discovery.places import Unread
    from enforcement.discovery.scan import Scan
    from enforcement.discovery.scope import Scope

__all__ = ["MAX_POSTED", "Given", "scan_report"]

MAX_POSTED: Final = 1_000
"""Servers that a service takes of one scan."""
_TEXT: Final = 512
_PLACE: Final = 4096
_TEXTS: Final = 16
_UNREAD: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a scan was given.

    Attributes:
        targets: Hosts and networks, as they were typed.
        ports: Ports for those without one.
        folders: Home and project folders.
        files: How many configurations of clients are in them.
        scope: What the targets came to.
        known: What was said to be registered.
    """

    targets: Sequence[str]
    ports: str
    folders: Sequence[Path]
    files: int
    scope: Scope
    known: Known


def _cut(text: str, longest: int) -> str:
    """Return a text that JSON can carry, cut to what is taken."""
    return text.encode("utf-8", "backslashreplace").decode()[:longest]


def _all(texts: Iterable[str], longest: int, most: int) -> list[str]:
    return [_cut(text, longest) for text in texts][:most]


def _sighting(one: Sighting) -> dict[str, Any]:
    return {
        "standing": one.standing,
        "source": one.source,
        "transport": one.transport,
        "place": _cut(one.place, _PLACE) or "?",
        "name": _cut(one.name, _TEXT),
        "version": _cut(one.version, _TEXT),
        # A server that a gateway stands before has no name in the list, unless it has.
        "server": one.registered,
        "certainty": one.certainty,
        "needs_token": one.needs_token,
        "eras": list(one.eras),
        "revisions": _all(one.revisions, _TEXT, _TEXTS),
        "client": None if one.client is None else _cut(one.client, _TEXT),
        "file": None if one.file is None else _cut(one.file, _PLACE),
        "disabled": one.disabled,
    }


def scan_report(
    given: Given,
    found: Scan,
    sightings: Sequence[Sighting],
    unread: Sequence[Unread],
    *,
    started_ms: int,
    ended_ms: int,
) -> dict[str, Any]:
    """Return a scan as a service takes it.

    Args:
        given: What it was given.
        found: What became of the ports.
        sightings: What was found, held against what is registered.
        unread: Files that could not be read.
        started_ms: Its beginning.
        ended_ms: Its end.

    Raises:
        ConfigError: It found more than a service takes at once.
    """
    if len(sightings) > MAX_POSTED:
        raise ConfigError(
            f"a service takes {MAX_POSTED} servers of one scan, and this found {len(sightings)}: give less"
        )
    servers = [name if url is None else f"{name} {url}" for name, url in given.known.servers]
    return {
        "started_ms": started_ms,
        "ended_ms": max(started_ms, ended_ms),
        "version": VERSION,
        "laboratory": method_digest(),
        "given": {
            "targets": _all(given.targets, _TEXT, 4096),
            "ports": _cut(given.ports, _PLACE),
            "paths": _all(given.scope.paths, _PLACE, 256),
            "folders": _all(map(str, given.folders), _PLACE, 1024),
            "servers": _all(servers, _PLACE, 4096),
            "gateways": _all(given.known.gateways, _PLACE, 256),
            "unread": _all((str(one.file) for one in unread), _PLACE, _UNREAD),
        },
        "counts": {
            "hosts": len({one.host for one in given.scope.endpoints}),
            "ports": len(given.scope.endpoints),
            "closed": found.count("closed"),
            "asked": found.count("asked"),
            "unfinished": found.count("unfinished"),
            "requests": found.requests,
            "files": given.files,
            "unread": len(unread),
        },
        "servers": [_sighting(one) for one in sightings],
    }
