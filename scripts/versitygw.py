"""Build versitygw, an S3 server with Object Lock that the tests start on 127.0.0.1.

It is a Go program and comes through Go's own module system, which checks it against the public checksum database. A
machine without Go goes without: the tests then use moto's server, and this says so.
"""

from __future__ import annotations

import os
import shutil

from scripts.console import ROOT, CommandError, run_logged, say

__all__ = ["BINARY", "MODULE", "VERSION", "provide"]

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"
BINARY = ROOT / ".cache" / "versitygw" / VERSION / "versitygw"
"""Where the tests look for it."""

_FALLBACK = "the S3 tests use moto's server instead, which imitates Object Lock in memory"


def provide() -> None:
    """Build the server unless it is there; without Go, or if it cannot be built, say what the tests use instead."""
    if BINARY.is_file():
        say(f"      versitygw {VERSION} is built")
        return
    if shutil.which("go") is None:
        say(f"      Go is not on this machine: {_FALLBACK}")
        return
    say(f"      building versitygw {VERSION}; the first time takes a few minutes")
    environment = {**os.environ, "GOBIN": str(BINARY.parent), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    try:
        run_logged(
            ["go", "install", "-trimpath", f"{MODULE}@{VERSION}"],
            log_name="versitygw.log",
            show=lambda line: line if line.startswith("go: downloading github.com/versity") else None,
            environment=environment,
        )
    except CommandError as error:
        say(f"      {error}: {_FALLBACK}")
