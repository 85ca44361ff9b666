"""Configuration files of clients in a folder: every known place, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enforcement.discovery.places import PLACES, configured_servers, present
from ledger.errors import ConfigError

SERVERS = {"mcpServers": {"a": {"command": "npx", "args": ["x"]}}}
TEXTS = {
    ".json": json.dumps(SERVERS),
    ".toml": '[mcp_servers.a]\ncommand = "npx"\n',
    ".yaml": "mcpServers:\n  - name: a\n    command: npx\n",
}


def put(folder: Path, place: str, text: str | None = None) -> Path:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXTS[path.suffix] if text is None else text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("client", "place"), PLACES)
def test_a_server_is_found_in_each_place(tmp_path, client, place):
    put(tmp_path, place)
    (one,), unread = configured_servers([tmp_path])
    assert (one.client, one.server.name, one.server.command[0]) == (client, "a", "npx")
    assert unread == []


def test_the_places_are_of_three_systems():
    for base in (".config/", "Library/Application Support/", "AppData/Roaming/"):
        assert any(place.startswith(base) for _, place in PLACES)
    assert len({client for client, _ in PLACES}) >= 18


def test_no_other_file_is_opened(tmp_path):
    for place in ("mcp.json", "secret/.cursor/mcp.json", ".cursor/mcp.json.bak", ".ssh/id_ed25519.json"):
        put(tmp_path, place, TEXTS[".json"])
    assert present(tmp_path) == []


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    outside = put(tmp_path / "outside", "mcp.json")
    home = tmp_path / "home"
    (home / ".cursor").mkdir(parents=True)
    (home / ".cursor" / "mcp.json").symlink_to(outside)
    (home / ".vscode").symlink_to(tmp_path / "outside")
    assert present(home) == []


def test_a_link_to_itself_and_a_folder_are_no_files(tmp_path):
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".cursor" / "mcp.json").symlink_to("mcp.json")
    (tmp_path / ".mcp.json").mkdir()
    assert present(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[]", "\x00", '{"mcpServers": ' + "[" * 50_000, "x" * (5 << 20)])
def test_what_cannot_be_read_is_told_and_holds_up_nothing(tmp_path, text):
    put(tmp_path, ".cursor/mcp.json", text)
    put(tmp_path, ".mcp.json")
    servers, unread = configured_servers([tmp_path])
    assert [one.client for one in servers] == ["Claude Code"]
    assert [one.file.name for one in unread] == ["mcp.json"]


def test_settings_without_servers_are_no_fault(tmp_path):
    put(tmp_path, ".vscode/settings.json", '{"editor.fontSize": 12}')
    assert configured_servers([tmp_path]) == ([], [])


def test_servers_in_a_list_have_their_names_or_places(tmp_path):
    entries = [{"name": "a", "command": "x"}, {"command": "y"}, {"name": "a", "command": "z"}, 3]
    put(tmp_path, ".continue/config.json", json.dumps({"mcpServers": entries}))
    servers, _ = configured_servers([tmp_path])
    assert [one.server.name for one in servers] == ["a", "#2", "#3", "#4"]
    assert servers[3].server.fault is not None


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        configured_servers([tmp_path / "nowhere"])
