"""Configurations of MCP clients: each known form is read, nothing secret taken along, nothing dropped in silence."""

from __future__ import annotations

import json
from itertools import pairwise

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


def test_what_aliases_of_yaml_stand_for_is_bounded_as_if_it_were_written_out() -> None:
    lists = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefgh"))
    merges = "".join(
        f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n" for before, name in pairwise("abcdefgh")
    )
    for text in (
        f"a: &a [{', '.join(['x'] * 10)}]\n{lists}mcpServers:\n  s: {{command: x, args: *h}}\n",
        f"a: &a {{x: 1}}\n{merges}mcpServers:\n  s: {{command: x, <<: *h}}\n",
        f"a: &a {'x' * (MAX_CONFIG_BYTES // 4)}\nmcpServers:\n  s: {{command: x, args: [*a, *a, *a, *a]}}\n",
    ):
        with pytest.raises(ConfigError, match="aliases written out"):
            read_client_config(text, "yaml")


@pytest.mark.parametrize(
    "text",
    [
        "mcpServers:\n  a:\n    command: &a\n      path: *a\n",
        "mcpServers: &a\n  a: *a\n",
        "mcpServers:\n  a:\n    command: x\n    args: &a [*a]\n",
        "projects: &a\n  p: {<<: *a}\n",
    ],
)
def test_nothing_is_followed_into_itself(text: str) -> None:
    with pytest.raises(ConfigError, match="alias of what it is a part of"):
        read_client_config(text, "yaml")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("mcpServers: {a: {command: x, disabled: !!bool x}}", "yaml"),
        ("mcpServers: {a: {command: x, args: [!!int '']}}", "yaml"),
        ("mcpServers: {a: {command: x, since: !!timestamp x}}", "yaml"),
        ("mcpServers: {a: {command: x, since: 2026-99-99}}", "yaml"),
        (f"mcpServers: {{0x{'f' * 5000}: {{command: x}}}}", "yaml"),
        (f"mcpServers: {{a: {{command: x, env: {{0x{'f' * 5000}: y}}}}}}", "yaml"),
    ],
)
def test_a_word_that_its_tag_does_not_fit_is_a_fault_of_the_file(text: str, form: str) -> None:
    with pytest.raises(ConfigError):
        read_client_config(text, form)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (f"mcpServers: {{a: {{command: x, args: [0x{'f' * 5000}]}}, b: {{command: y}}}}", "yaml"),
        (f"[mcp_servers.a]\ncommand = 'x'\nargs = [0x{'f' * 5000}]\n[mcp_servers.b]\ncommand = 'y'\n", "toml"),
    ],
)
def test_a_number_too_long_to_be_written_out_is_the_fault_of_one_server(text: str, form: str) -> None:
    first, second = read_client_config(text, form)  # type: ignore[arg-type]
    assert first.fault is not None
    assert "digits" in first.fault
    assert second.command == ("y",)


def test_aliases_that_people_use_are_followed() -> None:
    text = "defaults: &d {env: {KEY: s3cret}}\nmcpServers:\n  - {name: a, command: npx, args: [-y], <<: *d}\n"
    found = one(text, "yaml")
    assert (found.command, found.environment) == (("npx", "-y"), ("KEY",))


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "npx", "args": ["-y", ["server"]]},
        {"command": ["npx", {"a": "b"}]},
        {"command": {"path": {"path": {"path": "npx"}}}},
        {"command": {"path": "npx", "args": [[]]}},
    ],
)
def test_a_command_of_anything_but_words_is_reported(entry: object) -> None:
    found = one(json.dumps({"mcpServers": {"a": entry}}))
    assert found.fault is not None
    assert found.command == ()


@pytest.mark.parametrize("url", ["http://shadow.example\\@gateway.example/mcp", "http://gateway.example/mcp\\..\\x"])
def test_an_address_that_clients_read_otherwise_than_we_is_reported(url: str) -> None:
    assert one(json.dumps({"mcpServers": {"a": {"url": url}}})).fault == "has no http or https URL"
