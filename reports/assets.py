"""The files of this package that a report is made with: style sheets and fonts."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from ledger.errors import EvidenceError

__all__ = ["ASSET_SCHEME", "Asset", "read_asset"]

ASSET_SCHEME: Final = "asset"
"""Style sheets and fonts are named ``asset:styles/text.css``; see `reports.pdf`."""

_NAME: Final = re.compile(r"(styles|fonts)/[A-Za-z][A-Za-z0-9-]*\.(css|woff2)")
_MEDIA_TYPES: Final = {"css": "text/css", "woff2": "font/woff2"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file and what it is."""

    data: bytes
    media_type: str


def read_asset(name: str) -> Asset:
    """Return a style sheet or font of this package.

    Args:
        name: ``styles/NAME.css`` or ``fonts/NAME.woff2``.

    Raises:
        EvidenceError: The name is of another form, or there is no such file, or it cannot be read.
        MemoryError: There is no room for it.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise EvidenceError("this is not the name of a style sheet or font of the report")
    folder, suffix = match.groups()
    try:
        data = files("reports").joinpath(folder, name.partition("/")[2]).read_bytes()
    except FileNotFoundError as error:
        raise EvidenceError(f"the report's file {name} is missing") from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        raise EvidenceError(f"the report's file {name} cannot be read: {error.strerror}") from error
    return Asset(data, _MEDIA_TYPES[suffix])
