"""Fixtures for all tests; each lives in the module of `tests.support` that explains it."""

from __future__ import annotations

pytest_plugins = ("tests.support.postgres",)
