"""The software's version, as records and packs name it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["VERSION"]


def _installed() -> str:
    try:
        return version("tallystick")
    except PackageNotFoundError:
        return "0.0.0"


VERSION: Final = _installed()
