"""What the command line loads before it knows which command is meant, and with a command that is: nothing slow."""

from __future__ import annotations

import subprocess
import sys

from tests.support.repository import ROOT

HEAVY = ["fastapi", "uvicorn", "sqlalchemy", "weasyprint", "boto3", "cedarpy", "mcp", "aiohttp"]


def loaded_by(script: str) -> list[str]:
    program = f"import sys, click; {script}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_command_is_loaded_with_no_other():
    loaded = loaded_by("from service.cli.main import cli; cli.get_command(click.Context(cli), 'verify')")
    assert "service.cli.verify" in loaded
    assert [
        name for name in ("service.cli.evidence", "service.cli.serve", "service.cli.gateway") if name in loaded
    ] == []


def test_no_command_waits_for_a_library_that_another_needs():
    every = "[cli.get_command(context, name) for name in cli.list_commands(context)]"
    loaded = loaded_by(f"from service.cli.main import cli; context = click.Context(cli); {every}")
    assert "service.cli.evidence" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_opening_an_installation_to_audit_it_loads_neither_the_service_nor_what_its_settings_do_not_name():
    loaded = loaded_by("import service.cli.audit, service.wiring.installations")
    assert "sqlalchemy" in loaded
    assert [name for name in ("fastapi", "uvicorn", "boto3", "alembic", "cedarpy", "aiohttp") if name in loaded] == []
