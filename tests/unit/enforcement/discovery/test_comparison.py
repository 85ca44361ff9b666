"""What is registered, what is in a gateway's hands, what goes past it, and what is nobody's."""

from __future__ import annotations

import pytest

from enforcement.client_configs import ClientServer
from enforcement.discovery.comparison import Known, compare_configured, compare_found, same_place
from enforcement.discovery.found import FoundServer
from ledger.errors import ConfigError

KNOWN = Known(servers=[("finance", "http://127.0.0.1:8000/mcp"), ("notes", None)], gateways=["http://gate:9000/mcp"])


def found(url: str) -> str:
    (one,) = compare_found([FoundServer(url=url, transport="streamable_http")], KNOWN)
    return one.standing


def configured(known: Known = KNOWN, **members: object) -> str:
    server = ClientServer(name="x", **members)  # type: ignore[arg-type]
    (one,) = compare_configured([("Editor", "mcp.json", server)], known)
    return one.standing


@pytest.mark.parametrize(
    ("url", "standing"),
    [
        ("http://127.0.0.1:8000/mcp", "registered"),
        ("http://localhost:8000/mcp/", "registered"),
        ("http://[::1]:8000/mcp", "registered"),
        ("http://127.0.0.1:8000/", "shadow"),
        ("http://127.0.0.1:8001/mcp", "shadow"),
        ("https://127.0.0.1:8000/mcp", "shadow"),
        ("http://127.0.0.2:8000/mcp", "shadow"),
        ("http://gate:9000/mcp", "gateway"),
        ("http://gate:9000/mcp/finance", "gateway"),
        ("http://gate:9000/mcpx", "shadow"),
        ("http://gate:9000/", "shadow"),
        ("http://gate.evil:9000/mcp", "shadow"),
        ("http://gate:9000/mcp/../shadow", "shadow"),
        ("http://gate:9000/mcp/x/.%2E/%2e./shadow", "shadow"),
        ("http://gate:9000/mcp/./finance", "gateway"),
        ("http://gate:9000/x/../mcp/finance", "gateway"),
        ("http://gate:9000/../../mcp", "gateway"),
    ],
)
def test_a_server_on_the_network_is_known_by_its_place(url, standing):
    assert found(url) == standing


@pytest.mark.parametrize(
    ("members", "standing"),
    [
        ({"url": "http://gate:9000/mcp/finance"}, "gateway"),
        ({"url": "http://localhost:8000/mcp"}, "bypass"),
        ({"url": "http://elsewhere/mcp"}, "shadow"),
        ({"command": ("npx", "server")}, "shadow"),
        ({"command": ("tallystick", "wrap", "--server", "notes", "--", "npx")}, "registered"),
        ({"command": ("/opt/bin/tallystick", "wrap", "--server=notes", "--", "npx")}, "registered"),
        ({"command": ("C:\\bin\\tallystick.exe", "wrap", "--server", "notes", "--", "npx")}, "registered"),
        ({"command": ("tallystick", "wrap", "--server", "other", "--", "npx")}, "shadow"),
        ({"command": ("tallystick", "wrap", "--server")}, "shadow"),
        ({"command": ("tallystick", "wrap", "--", "npx", "--server", "notes")}, "shadow"),
        ({"command": ("tallystick", "serve", "--server", "notes")}, "shadow"),
        ({"command": ("npx", "tallystick", "wrap", "--server", "notes")}, "shadow"),
        ({"command": ("tallystick-evil", "wrap", "--server", "notes")}, "shadow"),
    ],
)
def test_a_client_is_in_order_only_through_a_gateway(members, standing):
    assert configured(**members) == standing


def test_without_a_gateway_a_registered_server_is_in_order():
    assert configured(Known(servers=KNOWN.servers), url="http://localhost:8000/mcp") == "registered"


def test_of_what_a_client_starts_the_arguments_are_not_told():
    server = ClientServer(name="x", command=("npx", "--token", "s3cret"))
    (one,) = compare_configured([("Editor", "mcp.json", server)], KNOWN)
    assert "s3cret" not in repr(one)


def test_what_is_no_server_is_not_compared():
    assert compare_configured([("Editor", "mcp.json", ClientServer(name="x", fault="is no mapping"))], KNOWN) == []


def test_urls_that_are_none_are_the_same_as_nothing():
    assert not same_place("http://[", "http://[")
    with pytest.raises(ConfigError):
        compare_found([FoundServer(url="http://a/", transport="sse")], Known(gateways=["http://["]))
