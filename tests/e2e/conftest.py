"""Fixtures of the end-to-end tests: the demonstration, run once for all of them."""

from __future__ import annotations

from tests.support.demonstration import runs

__all__ = ["runs"]
