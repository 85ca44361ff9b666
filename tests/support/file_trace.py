"""What a piece of code does to files, in order: which inode it syncs, which names it gives, makes and takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest


def inode(path: Path) -> int:
    return path.stat().st_ino


@dataclass
class FileTrace:
    """Records calls that matter for durability, each with the inode that it is about; `fail` makes one of them fail."""

    calls: list[tuple[str, int]] = field(default_factory=list)
    _failures: dict[str, OSError] = field(default_factory=dict)

    @classmethod
    def start(cls, monkeypatch: pytest.MonkeyPatch) -> FileTrace:
        """Record from now on until the test ends."""
        trace = cls()
        real = {name: getattr(os, name) for name in ("fsync", "link", "replace", "unlink")}
        monkeypatch.setattr(os, "fsync", trace._wrap("sync", real["fsync"], lambda fd: os.fstat(fd).st_ino))
        for name in ("link", "replace", "unlink"):
            monkeypatch.setattr(os, name, trace._wrap(name, real[name], lambda path, *_: inode(Path(path))))
        return trace

    def _wrap(self, name: str, real: Callable[..., None], about: Callable[..., int]) -> Callable[..., None]:
        def wrapped(*arguments: object, **keywords: object) -> None:
            number = about(*arguments)
            if name in self._failures:
                raise self._failures[name]
            real(*arguments, **keywords)
            self.calls.append((name, number))

        return wrapped

    def fail(self, name: str, error: int) -> None:
        """Make every later call of this name (sync, link, replace, unlink) fail with an errno."""
        self._failures[name] = OSError(error, os.strerror(error))

    def heal(self) -> None:
        """Let all calls succeed again."""
        self._failures.clear()

    def positions(self, name: str, path: Path) -> list[int]:
        """Return when calls of this name were about the file or directory at ``path``."""
        return [position for position, call in enumerate(self.calls) if call == (name, inode(path))]
