"""Reading the gateway's configuration file, its list of servers, and the tokens that they name.

One YAML file, read once, refused as a whole if any line of it is wrong. Key files are read by `ledger.keys`.

Source: YAML 1.1 as PyYAML's safe loader reads it; here a key that stands twice is an error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import ValidationError

from enforcement.config import GatewayConfig, ServerList, ServerSettings
from enforcement.config_types import Settings
from ledger.errors import ConfigError, MalformedError
from ledger.trust import TrustPolicy, parse_trust_policy

__all__ = [
    "authorizations",
    "load_config",
    "load_servers",
    "parse_config",
    "parse_servers",
    "read_secret",
    "read_text",
    "read_trust",
]

_S = TypeVar("_S", bound=Settings)

_MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_SECRET_BYTES: Final = 4096


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _place(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.lstrip(".") or "the configuration"


def parse_config(text: str) -> GatewayConfig:
    """Read a configuration.

    Args:
        text: YAML.

    Raises:
        ConfigError: One line for each thing that is wrong, naming its place, never its value.
    """
    return _parse(text, GatewayConfig)


def parse_servers(text: str) -> tuple[ServerSettings, ...]:
    """Read a list of servers.

    Args:
        text: YAML, a `ServerList`.

    Raises:
        ConfigError: One line for each thing that is wrong, naming its place, never its value.
    """
    return _parse(text, ServerList).servers


def _parse(text: str, kind: type[_S]) -> _S:
    try:
        return kind.model_validate(yaml.load(text, Loader=_Loader))  # noqa: S506  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise ConfigError(f"the configuration is not YAML{line}: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise ConfigError("\n".join(_lines(error))) from error
        raise ConfigError("the configuration is not YAML") from error


def _lines(error: ValidationError) -> list[str]:
    return [f"{_place(item['loc'])}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()]


def load_config(path: Path) -> GatewayConfig:
    """Read a configuration file.

    Raises:
        ConfigError: It cannot be read, or is not a sound configuration.
    """
    config = parse_config(read_text(path))
    resolved: dict[str, object] = {}
    if config.servers_file is not None:
        resolved["servers_file"] = path.parent / config.servers_file
    if config.inspection is not None and config.inspection.rules is not None:
        rules = path.parent / config.inspection.rules
        resolved["inspection"] = config.inspection.model_copy(update={"rules": rules})
    return config.model_copy(update=resolved) if resolved else config


def load_servers(path: Path) -> tuple[ServerSettings, ...]:
    """Read a file that lists servers.

    Raises:
        ConfigError: It cannot be read, or is not a sound list.
    """
    return parse_servers(read_text(path))


def read_text(path: Path) -> str:
    """Read a configuration's text.

    Raises:
        ConfigError: It cannot be read, is too large, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"the configuration {path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration {path.name} is not UTF-8") from error
    if len(data) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"the configuration {path.name} has more than {_MAX_CONFIG_BYTES} bytes")
    return text


def read_secret(uri: str) -> str:
    """Read a token by URI; white space around it is no part of it.

    Args:
        uri: ``file:PATH`` (readable by its owner alone) or ``env:NAME``.

    Raises:
        ConfigError: It is not there, is empty, or others can read the file.
    """
    scheme, _, place = uri.partition(":")
    if scheme == "env":
        secret = os.environ.get(place, "")
    else:
        path = Path(place)
        try:
            status = path.stat()
            secret = path.read_text() if status.st_size <= _MAX_SECRET_BYTES else ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the secret file {path.name} cannot be read") from error
        if status.st_mode & 0o077:
            raise ConfigError(f"the secret file {path.name} can be read by others than its owner; chmod 600 it")
    if not secret.strip():
        raise ConfigError(f"there is no secret at {scheme}:{Path(place).name}")
    return secret.strip()


def authorizations(servers: Sequence[ServerSettings]) -> dict[tuple[str, str | None], str]:
    """Return what the gateway itself presents to servers, by their names and addresses.

    Raises:
        ConfigError: A secret is not there.
    """
    return {(one.name, one.url): read_secret(one.authorization) for one in servers if one.authorization}


def read_trust(path: Path) -> TrustPolicy:
    """Read a trust policy: which keys must have signed the log's checkpoints.

    Raises:
        ConfigError: It cannot be read, is none, or does not name exactly one log.
    """
    try:
        policy = parse_trust_policy(read_text(path).encode())
    except MalformedError as error:
        raise ConfigError(f"the trust policy {path.name}: {error}") from error
    if len({key.name for key in policy.logs}) != 1:
        raise ConfigError(f"the trust policy {path.name} does not name exactly one log")
    return policy
