"""What goes on to a server: MCP and tracing, and no credential of the client."""

from __future__ import annotations

import pytest

from enforcement.upstream import forwarded_headers
from tests.support.mcp_messages import headers_of


def test_headers_of_the_protocol_and_of_tracing_go_on() -> None:
    extra = (("traceparent", "00-x"), ("Mcp-Param-Region", "eu"), ("user-agent", "bot/1"))
    headers = forwarded_headers(headers_of(extra=extra), None)
    assert headers["mcp-method"] == "tools/call"
    assert headers["mcp-param-region"] == "eu"
    assert {"traceparent", "user-agent", "accept", "content-type", "mcp-protocol-version"} <= set(headers)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "X-Forwarded-For",
        "Forwarded",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Host",
        "Content-Length",
        "Mcp_Name",
        "Mcp-Session-Id",
        "Last-Event-ID",
        "X-Anything",
    ],
)
def test_what_is_not_known_to_be_harmless_stays_here(name: str) -> None:
    headers = forwarded_headers(headers_of(extra=((name, "secret"),)), None)
    assert "secret" not in headers.values()


def test_the_gateway_presents_its_own_credential_and_asks_for_plain_bytes() -> None:
    lines = headers_of(token="of-the-client", extra=(("accept-encoding", "gzip"),))
    headers = forwarded_headers(lines, "Bearer of-the-gateway")
    assert headers.getall("authorization") == ["Bearer of-the-gateway"]
    assert headers.getall("accept-encoding") == ["identity"]


def test_a_value_beyond_ascii_does_not_go_on() -> None:
    assert "mcp-param-x" not in forwarded_headers([(b"Mcp-Param-X", b"\xe4")], None)
