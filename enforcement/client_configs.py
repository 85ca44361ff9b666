"""Configuration files of MCP clients: which servers a desktop app, an editor or a command line would call.

Pure: text in, servers out. JSON is read as editors read it, with comments and trailing commas. Nothing secret is taken
along: of headers and environments only the names are.

INVARIANT: what is not understood is reported, never guessed and never dropped in silence.

INVARIANT: whoever writes such a file ends no reading of others: what aliases of YAML stand for is bounded as if it were
written out, and nothing is followed into itself.

Sources: the documented configuration formats of the clients named in `_PLACES`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import yaml

from ledger.errors import ConfigError

__all__ = ["MAX_CONFIG_BYTES", "ClientServer", "ConfigFormat", "read_client_config"]

MAX_CONFIG_BYTES: Final = 4 << 20
"""Longest configuration file that is read."""

ConfigFormat = Literal["json", "toml", "yaml"]

# A string, a comment, or a comma with nothing but space and comments before the closing bracket. What was matched is
# not tried in another way, and what nothing ends goes to the end: a file is read in one pass, whatever stands in it.
_JSONC: Final = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*+"?)|//[^\n]*+|/\*.*?(?:\*/|\Z)"""
    r"""|(?P<comma>,)(?=(?>\s|//[^\n]*+|/\*.*?(?:\*/|\Z))*+[}\]])""",
    re.DOTALL,
)
_PLACES: Final = (
    ("mcpServers",),  # most desktop apps and command lines
    ("servers",),  # VS Code's mcp.json
    ("mcp", "servers"),  # VS Code's settings.json
    ("context_servers",),  # Zed
    ("mcp_servers",),  # Codex
    ("extensions",),  # Goose
    ("mcp",),  # OpenCode
)
_URLS: Final = ("url", "serverUrl", "httpUrl", "uri", "endpoint")
_ENVIRONMENTS: Final = ("env", "environment", "envs")


class _Loader(yaml.SafeLoader):
    """Reads YAML; counts what it holds, an alias as what it stands for."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._weight = 0
        self._weights: dict[int, int] = {}  # of nodes that are whole; they live as long as the document

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        before, alias = self._weight, self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._weights:
            raise ConfigError("something in the file is an alias of what it is a part of")
        self._weight += self._weights[id(node)] if alias else 1
        if isinstance(node, yaml.ScalarNode) and not alias:
            self._weight += len(node.value)
        if self._weight > MAX_CONFIG_BYTES:
            raise ConfigError(f"with its aliases written out, the file has more than {MAX_CONFIG_BYTES} characters")
        if not alias:
            self._weights[id(node)] = self._weight - before
        return node


# A word of YAML that its tag does not fit fails in many ways in the library.
_UNREADABLE: Final = (
    *(ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError),
    yaml.YAMLError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientServer:
    """A server as a client's configuration has it.

    Attributes:
        name: As the client calls it.
        url: Where it is, for a remote one; credentials and query are taken out of it.
        command: The program and its arguments, for one that the client starts itself; it may hold secrets, and is for
            the screen of whoever owns the file.
        headers: Names of the headers that the client sends.
        environment: Names of the variables that the program gets.
        disabled: The client does not use it now.
        stripped: Its URL carried credentials, a query or a fragment, which are left out.
        fault: Why it is no server that could be understood, or None.
    """

    name: str
    url: str | None = None
    command: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    disabled: bool = False
    stripped: bool = False
    fault: str | None = None


def read_client_config(text: str, form: ConfigFormat = "json") -> tuple[ClientServer, ...]:
    """Return the servers of a client's configuration, in its order; of one name there may be several that differ.

    Args:
        text: The file.
        form: How it is written.

    Raises:
        ConfigError: It is too large, not written so, or holds no list of servers in any place that is known.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"the file has more than {MAX_CONFIG_BYTES} characters")
    value = _parse(text, form)
    found: dict[ClientServer, None] = {}
    seen = False
    for entries in _lists(value):
        seen = True
        for name, entry in entries.items():
            found.setdefault(_server(_word(name), entry))
    if not seen:
        raise ConfigError("there is no list of MCP servers in it")
    return tuple(found)


def _parse(text: str, form: ConfigFormat) -> Mapping[Any, Any]:
    try:
        if form == "toml":
            value: object = tomllib.loads(text)
        elif form == "yaml":
            value = yaml.load(text, _Loader)  # noqa: S506  # a safe one
        else:
            value = json.loads(_JSONC.sub(lambda match: match["string"] or ("" if match["comma"] else " "), text))
    except _UNREADABLE as error:
        raise ConfigError(f"the file is not {form.upper()}") from error
    if not isinstance(value, Mapping):
        raise ConfigError("the file holds no mapping")
    return value


def _lists(value: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """Yield the mappings of servers: at the top, and of each project of a file that holds several."""
    for path in _PLACES:
        place: Any = value
        for key in path:
            place = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(place, list):  # Continue: a list of servers, each with its name
            place = _by_name(place)
        if isinstance(place, Mapping) and _are_servers(place):
            yield place
    projects = value.get("projects")
    if isinstance(projects, Mapping):
        for project in projects.values():
            servers = project.get("mcpServers") if isinstance(project, Mapping) else None
            if isinstance(servers, Mapping):
                yield servers


def _by_name(entries: list[Any]) -> Mapping[str, Any]:
    """Return a list of servers as a mapping; of one without a name its place in the list is told."""
    found: dict[str, Any] = {}
    for position, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        key = name if isinstance(name, str) and name not in found else f"#{position + 1}"
        found[key] = entry
    return found


def _are_servers(place: Mapping[Any, Any]) -> bool:
    """Whether a mapping is one of servers, and no settings that happen to stand in such a place."""
    if "servers" in place and isinstance(place["servers"], Mapping):
        return False
    return not place or any(isinstance(entry, Mapping) for entry in place.values())


def _server(name: str, entry: object) -> ClientServer:
    if not isinstance(entry, Mapping):
        return ClientServer(name=name, fault="is no mapping")
    headers = _names(entry.get("headers") or entry.get("http_headers"))
    environment = next((_names(entry[key]) for key in _ENVIRONMENTS if key in entry), ())
    disabled = entry.get("disabled") is True or entry.get("enabled") is False
    url = next((entry[key] for key in _URLS if isinstance(entry.get(key), str)), None)
    try:
        command = _command(entry)
    except ConfigError as error:
        return ClientServer(name=name, disabled=disabled, fault=str(error))
    if url is not None:
        place, stripped = _place(url)
        if place is None:
            return ClientServer(name=name, disabled=disabled, fault="has no http or https URL")
        return ClientServer(
            name=name, url=place, headers=headers, environment=environment, disabled=disabled, stripped=stripped
        )
    if not command:
        return ClientServer(name=name, disabled=disabled, fault="has neither a URL nor a command")
    return ClientServer(name=name, command=command, environment=environment, disabled=disabled)


def _command(entry: Mapping[Any, Any]) -> tuple[str, ...]:
    command: object = entry.get("command") or entry.get("cmd")
    arguments: object = entry.get("args")
    if isinstance(command, Mapping):  # Zed: {"path": …, "args": […]}
        arguments = command.get("args")
        command = command.get("path")
    if isinstance(command, list):
        return tuple(map(_word, command))
    if not isinstance(command, str) or not command:
        return ()
    return (command, *map(_word, arguments)) if isinstance(arguments, list) else (command,)


def _word(part: object) -> str:
    if isinstance(part, list | Mapping):
        raise ConfigError("has a command in which not every word is one")
    try:
        return str(part)
    except ValueError:  # a number of more digits than Python writes out
        raise ConfigError("has a number of thousands of digits for a word") from None


def _names(value: object) -> tuple[str, ...]:
    return tuple(sorted(_word(name) for name in value)) if isinstance(value, Mapping) else ()


def _place(url: str) -> tuple[str | None, bool]:
    """Return a URL without what may be secret in it, and whether there was any."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None, False
    # Behind a backslash some clients see a path, and we the host.
    if parts.scheme not in ("http", "https") or not host or "\\" in url:
        return None, False
    bare = f"[{host}]" if ":" in host else host
    netloc = bare if port is None else f"{bare}:{port}"
    stripped = bool(parts.username or parts.password or parts.query or parts.fragment)
    return urlunsplit((parts.scheme, netloc, parts.path, "", "")), stripped
