"""Scans as scanners hand them in."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["SCAN", "a_scan", "sighting"]


def sighting(place: str = "http://10.0.0.7:8000/mcp", **changes: Any) -> dict[str, Any]:
    """Return a shadow server that the network showed, with what is said otherwise."""
    return {
        "standing": "shadow",
        "source": "network",
        "transport": "streamable_http",
        "place": place,
        "name": "Finance of Carol",
        "version": "9.1-secret",
        "eras": ["stateful"],
        "revisions": ["2025-11-25"],
        **changes,
    }


def a_scan(*servers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a scan that found these."""
    return {
        "started_ms": 1_763_500_000_000,
        "ended_ms": 1_763_500_060_000,
        "version": "0.1.0",
        "laboratory": "1a" * 32,
        "given": {"targets": ["10.0.0.0/28", "carols-laptop.example"], "ports": "8000", "paths": ["/mcp"]},
        "counts": {"hosts": 17, "ports": 17, "closed": 16, "asked": 1, "requests": 9},
        "servers": list(servers),
        **changes,
    }


SCAN: Final = a_scan(sighting())
