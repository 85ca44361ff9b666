"""Where MCP clients keep their configuration, under a home or a project folder that was given.

The places of desktop apps, editors and command lines on Linux, macOS and Windows, all of them looked for whatever the
system is: a folder may be a copy or a share of another machine's. No other file is opened, and none outside of the
folder, wherever a link in it leads.

Sources: the clients' own documentation of their configuration files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enforcement.client_configs import MAX_CONFIG_BYTES, ClientServer, ConfigFormat, read_client_config
from ledger.errors import ConfigError

__all__ = ["PLACES", "ConfiguredServer", "Unread", "configured_servers", "present"]

_FORMATS: Final[dict[str, ConfigFormat]] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
_ROAMING: Final = (".config", "Library/Application Support", "AppData/Roaming")
"""Where applications keep settings: Linux, macOS, Windows."""
_EDITORS: Final = ("Code", "Code - Insiders", "VSCodium", "Cursor", "Windsurf")
_EXTENSIONS: Final = (
    ("Cline", "saoudrizwan.claude-dev/settings/cline_mcp_settings.json"),
    ("Roo Code", "rooveterinaryinc.roo-cline/settings/mcp_settings.json"),
    ("Kilo Code", "kilocode.kilo-code/settings/mcp_settings.json"),
)


def _roaming() -> Iterator[tuple[str, str]]:
    for base in _ROAMING:
        yield "Claude Desktop", f"{base}/Claude/claude_desktop_config.json"
        yield "Zed", f"{base}/{'zed' if base == '.config' else 'Zed'}/settings.json"
        for editor in _EDITORS:
            yield editor, f"{base}/{editor}/User/mcp.json"
            yield editor, f"{base}/{editor}/User/settings.json"
            for client, place in _EXTENSIONS:
                yield client, f"{base}/{editor}/User/globalStorage/{place}"


PLACES: Final[tuple[tuple[str, str], ...]] = (
    *_roaming(),
    ("Claude Code", ".claude.json"),
    ("Claude Code", ".claude/settings.json"),
    ("Claude Code", ".mcp.json"),
    ("Cursor", ".cursor/mcp.json"),
    ("VS Code", ".vscode/mcp.json"),
    ("VS Code", ".vscode/settings.json"),
    ("Windsurf", ".codeium/windsurf/mcp_config.json"),
    ("Zed", ".zed/settings.json"),
    ("Codex", ".codex/config.toml"),
    ("Gemini CLI", ".gemini/settings.json"),
    ("Qwen Code", ".qwen/settings.json"),
    ("Goose", ".config/goose/config.yaml"),
    ("Goose", "AppData/Roaming/Block/goose/config/config.yaml"),
    ("OpenCode", ".config/opencode/opencode.json"),
    ("OpenCode", "opencode.json"),
    ("Crush", ".config/crush/crush.json"),
    ("Continue", ".continue/config.yaml"),
    ("Continue", ".continue/config.json"),
    ("LM Studio", ".lmstudio/mcp.json"),
    ("Amazon Q", ".aws/amazonq/mcp.json"),
    ("Kiro", ".kiro/settings/mcp.json"),
    ("Copilot CLI", ".copilot/mcp-config.json"),
    ("Junie", ".junie/mcp/mcp.json"),
    ("Roo Code", ".roo/mcp.json"),
)
"""Clients, and the files they read, by paths from a home or project folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredServer:
    """A server in a client's configuration."""

    client: str
    file: Path
    server: ClientServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A configuration file that is there and could not be read, and why."""

    file: Path
    reason: str


def present(folder: Path) -> list[tuple[str, Path]]:
    """Return the clients' files that are there, each once."""
    root = folder.resolve()
    found: dict[Path, str] = {}
    for client, place in PLACES:
        path = root / place
        try:
            real = path.resolve()
            if real.is_relative_to(root) and real.is_file():
                found.setdefault(real, client)
        except (OSError, RuntimeError):  # a link that leads to itself
            continue
    return [(client, path) for path, client in found.items()]


def configured_servers(folders: Iterable[Path]) -> tuple[list[ConfiguredServer], list[Unread]]:
    """Read the configurations under folders.

    Returns:
        The servers that clients have, and the files that are there and tell nothing.

    Raises:
        ConfigError: What was given is no folder.
    """
    servers: list[ConfiguredServer] = []
    unread: list[Unread] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder.name} is no folder")
        for client, path in present(folder):
            try:
                read = read_client_config(_text(path), _FORMATS.get(path.suffix, "json"))
            except ConfigError as error:
                # Settings of an editor that has no server configured are no fault of anybody.
                if "no list of MCP servers" not in str(error):
                    unread.append(Unread(file=path, reason=str(error)))
                continue
            servers += [ConfiguredServer(client=client, file=path, server=one) for one in read]
    return servers, unread


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"it has more than {MAX_CONFIG_BYTES} bytes")
    return data.decode("utf-8-sig", "replace")
