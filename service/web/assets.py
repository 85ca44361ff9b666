"""The style sheet, the script and the emblem: ours, few, and named by their digest so that browsers may keep them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

__all__ = ["Asset", "Assets"]

_MEDIA_TYPES: Final = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "emblem.svg": "image/svg+xml",
}
_DIGEST_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One static file.

    Attributes:
        url: Its path, with a digest of its bytes: the same URL never means other bytes.
        media_type: For the answer's header.
        data: Its bytes.
    """

    url: str
    media_type: str
    data: bytes


class Assets:
    """All static files, read once from the package."""

    def __init__(self) -> None:
        self._by_name = {name: _load(name, media_type) for name, media_type in _MEDIA_TYPES.items()}
        self._by_url = {asset.url: asset for asset in self._by_name.values()}

    def url(self, name: str) -> str:
        """Return the path of a file by its plain name, such as ``style.css``."""
        return self._by_name[name].url

    def at(self, url: str) -> Asset | None:
        """Return the file at a path, or None."""
        return self._by_url.get(url)


def _load(name: str, media_type: str) -> Asset:
    data = files("service.web").joinpath("static", name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:_DIGEST_DIGITS]
    stem, _, suffix = name.rpartition(".")
    return Asset(url=f"/assets/{stem}.{digest}.{suffix}", media_type=media_type, data=data)
