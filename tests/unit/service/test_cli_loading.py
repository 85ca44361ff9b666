"""What the command line loads before it knows which command is meant: nothing that takes long."""

from __future__ import annotations

import subprocess
import sys

from tests.support.repository import ROOT

HEAVY = ["fastapi", "uvicorn", "sqlalchemy", "weasyprint", "boto3", "cedarpy", "mcp", "aiohttp"]


def test_no_command_waits_for_a_library_that_another_needs():
    script = "import sys, service.cli; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "service.cli.evidence" in loaded
    assert [name for name in HEAVY if name in loaded] == []
