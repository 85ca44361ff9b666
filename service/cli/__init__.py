"""The command ``tallystick``, one file for each group of commands."""

from __future__ import annotations

from service.cli.main import main

__all__ = ["main"]
