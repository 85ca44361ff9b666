"""What is published of the scanner is of this very code."""

from __future__ import annotations

import re
from pathlib import Path

import enforcement.discovery
from enforcement.discovery import method
from enforcement.discovery.method import METHOD_MODULES, method_digest

DOCUMENT = Path(__file__).parents[4] / "docs" / "discovery.md"
PACKAGE = Path(enforcement.discovery.__file__).parent


def test_the_document_was_measured_with_the_code_that_scans():
    # Whoever changes how the network is asked measures anew: python -m tests.discovery.measure
    assert re.findall(r"`([0-9a-f]{64})`", DOCUMENT.read_text(encoding="utf-8")) == [method_digest()]


def test_every_module_that_asks_the_network_counts():
    asking = {
        path.stem for path in PACKAGE.glob("*.py") if re.search(r"aiohttp|open_connection", path.read_text("utf-8"))
    }
    assert asking <= set(METHOD_MODULES)
    assert asking


def test_another_byte_of_any_of_them_is_another_digest(monkeypatch, tmp_path):
    found = {method_digest()}
    for name in METHOD_MODULES:
        for other in METHOD_MODULES:
            source = (PACKAGE / f"{other}.py").read_bytes()
            (tmp_path / f"{other}.py").write_bytes(source + b"#" if other == name else source)
        monkeypatch.setattr(method.resources, "files", lambda _package: tmp_path)
        found.add(method_digest.__wrapped__())
    assert len(found) == 1 + len(METHOD_MODULES)
