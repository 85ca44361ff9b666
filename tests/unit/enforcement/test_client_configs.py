"""Configurations of MCP clients: each known form is read, nothing secret taken along, nothing dropped in silence."""

from __future__ import annotations

import json

import pytest

from enforcement.client_configs import MAX_CONFIG_BYTES, ClientServer, read_client_config
from ledger.errors import ConfigError

REMOTE = {"url": "https://mcp.example.com/mcp"}
STARTED = {"command": "npx", "args": ["-y", "server"], "env": {"API_KEY": "s3cret-value"}}


def one(text: str, form: str = "json") -> ClientServer:
    (found,) = read_client_config(text, form)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    "place",
    [
        {"mcpServers": {"a": REMOTE}},
        {"servers": {"a": {"type": "http", **REMOTE}}, "inputs": []},
        {"mcp": {"servers": {"a": REMOTE}}, "editor.fontSize": 12},
        {"mcpServers": {"a": {"serverUrl": REMOTE["url"]}}},
        {"mcpServers": {"a": {"httpUrl": REMOTE["url"]}}},
        {"mcp": {"a": {"type": "remote", **REMOTE, "enabled": True}}},
        {"projects": {"/srv/project": {"mcpServers": {"a": REMOTE}}}},
    ],
)
def test_a_remote_server_is_found_in_each_place_that_clients_use(place: object) -> None:
    assert one(json.dumps(place)).url == REMOTE["url"]


@pytest.mark.parametrize(
    "place",
    [
        {"mcpServers": {"a": STARTED}},
        {"context_servers": {"a": {"command": {"path": "npx", "args": ["-y", "server"]}}}},
        {"mcp": {"a": {"type": "local", "command": ["npx", "-y", "server"]}}},
    ],
)
def test_a_server_that_a_client_starts_is_found_with_its_command(place: object) -> None:
    assert one(json.dumps(place)).command == ("npx", "-y", "server")


def test_toml_and_yaml_are_read_as_well() -> None:
    assert one('[mcp_servers.a]\nurl = "https://mcp.example.com/mcp"\n', "toml").url == REMOTE["url"]
    assert one("extensions:\n  a: {type: sse, uri: https://mcp.example.com/mcp, enabled: false}\n", "yaml").disabled


def test_comments_and_trailing_commas_are_read_as_editors_read_them() -> None:
    text = """{ // a comment, with "quotes"
      "mcpServers": { /* another, } */
        "a": { "url": "https://mcp.example.com//path", "headers": {"X": "a // no comment, }",}, }, // last
      }, /* , */ }"""
    found = one(text)
    assert (found.url, found.headers) == ("https://mcp.example.com//path", ("X",))


def test_comments_one_after_the_other_are_read_in_one_pass() -> None:
    """Each way to divide them among a pattern's parts was tried once: 2 to the power of their number."""
    text = '{"mcpServers": {"a": {"url": "https://mcp.example.com/mcp",' + "/**/" * 10_000 + '"headers": {}}}}'
    assert one(text).url == REMOTE["url"]


def test_servers_of_one_name_that_differ_are_all_there() -> None:
    projects = {"/a": REMOTE, "/b": STARTED, "/c": REMOTE}
    text = json.dumps({"projects": {path: {"mcpServers": {"x": entry}} for path, entry in projects.items()}})
    first, second = read_client_config(text)
    assert (first.name, second.name, bool(first.url), bool(second.command)) == ("x", "x", True, True)


def test_nothing_secret_is_taken_along() -> None:
    entry = {
        "url": "https://user:pass@mcp.example.com:8443/mcp?key=s3cret#x",
        "headers": {"Authorization": "Bearer s3cret"},
    }
    found = read_client_config(json.dumps({"mcpServers": {"a": entry, "b": STARTED}}))
    assert "s3cret" not in repr(found)
    assert "pass" not in repr(found)
    assert (found[0].url, found[0].stripped, found[0].headers) == (
        "https://mcp.example.com:8443/mcp",
        True,
        ("Authorization",),
    )
    assert found[1].environment == ("API_KEY",)


@pytest.mark.parametrize(
    "entry", [7, "x", None, [], {}, {"url": "ftp://x"}, {"url": "https://"}, {"url": "http://[x"}, {"command": 3}]
)
def test_what_is_not_understood_is_said_and_not_dropped(entry: object) -> None:
    found = read_client_config(json.dumps({"mcpServers": {"a": entry, "b": REMOTE}}))
    assert [one.name for one in found if one.fault] == ["a"]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", "json"),
        ("[]", "json"),
        ("{", "json"),
        ("{}", "json"),
        ('{"mcpServers": 3}', "json"),
        ("[" * 100_000, "json"),
        ("a = ", "toml"),
        ("a: [", "yaml"),
        ("!!python/object:os.system x", "yaml"),
        (" " * (MAX_CONFIG_BYTES + 1), "json"),
    ],
)
def test_a_file_without_servers_is_refused(text: str, form: str) -> None:
    with pytest.raises(ConfigError):
        read_client_config(text, form)  # type: ignore[arg-type]
