"""Preparing a gateway: its keys, its introduction to the log, its configuration, a token for a first agent.

All of it or nothing: what is asked for is checked before the log learns of a key, the files are written beside the
directory, and the directory gets its name when they are all there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from enforcement.config_files import parse_config
from ledger.clock import SystemClock
from ledger.envelopes import ED25519
from ledger.errors import ConfigError
from ledger.files import appearing_directory, create_durably
from ledger.keys import generate_key, load_key, save_key
from ledger.notes import encode_base64
from service.cli.client import ServiceClient, service_section
from service.cli.output import in_words
from service.keyset import key_files

__all__ = ["GatewayWish", "Prepared", "prepare_gateway"]

_CONFIG: Final = "gateway.yaml"
_TOKEN: Final = "service.token"  # noqa: S105  # a file's name
_AGENT_TOKEN_BYTES: Final = 32
_OPTIONS: Final = {
    r"enforcer_id": "--id",
    r"zone": "--zone",
    r"service\.url": "--url",
    r"principals\[0\]\.agent": "--agent",
    r"principals\[0\]\.roles(\[\d+\])?": "--role",
    r"servers(\[\d+\](\.name|\.url)?)?": "--server",
}
"""Places in a configuration, as regular expressions, by the option that fills them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayWish:
    """What a gateway shall be.

    Attributes:
        enforcer_id: Its name in the ledger.
        servers: URLs of MCP servers by name.
        agent: A first agent that may call.
        roles: The agent's roles.
        zone: IANA zone in which policies read the hour.
        url: The service.
    """

    enforcer_id: str
    servers: Mapping[str, str]
    agent: str
    roles: tuple[str, ...]
    zone: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A gateway that can be run.

    Attributes:
        config: Its configuration file.
        agent_token: The first agent's token; kept nowhere else.
        leaf_index: Leaf of the record that introduces its key.
    """

    config: Path
    agent_token: str
    leaf_index: int


def _config(wish: GatewayWish, directory: Path, agent_token: str, introduced: Mapping[str, Any]) -> str:
    """Return the configuration as YAML.

    Raises:
        ConfigError: Something that was asked for cannot stand in it; a line for each, which names the option.
    """
    text = yaml.safe_dump(
        {
            "enforcer_id": wish.enforcer_id,
            "log_id": introduced["log_id"],
            "tenant": introduced["tenant"],
            "environment": introduced["environment"],
            "zone": wish.zone,
            "state_directory": str(directory / "state"),
            "service": service_section(wish.url, f"file:{directory / _TOKEN}"),
            "keys": {name: f"file:{directory / name}.json" for name in ("signing", "pseudonym", "spool")},
            "principals": [
                {
                    "token_sha256": hashlib.sha256(agent_token.encode()).hexdigest(),
                    "agent": wish.agent,
                    "roles": list(wish.roles),
                }
            ],
            "servers": [{"name": name, "url": url} for name, url in wish.servers.items()],
        },
        sort_keys=False,
        allow_unicode=True,
    )
    try:
        parse_config(text)
    except ConfigError as error:
        raise ConfigError("\n".join(map(_by_option, str(error).splitlines()))) from error
    return text


def _by_option(fault: str) -> str:
    place, separator, reason = fault.partition(": ")
    option = next((option for pattern, option in _OPTIONS.items() if re.fullmatch(pattern, place)), place)
    return f"{option}{separator}{in_words(reason)}"


def _shared_key(client: ServiceClient, keys_dir: Path, passphrase: str | None) -> bytes:
    """Return the file of the pseudonym key that the log uses now.

    Under another one, of before a rotation or of another log, nobody would find whom the gateway's records are about:
    neither who searches nor who erases.

    Raises:
        ConfigError: It is not among the keys, or they cannot be read.
    """
    found = client.get("/v1/keys")["items"]
    used = [item["key_id"] for item in found if (item["purpose"], item["state"]) == ("pseudonym", "in force")]
    for name, (purpose, _) in key_files(keys_dir).items():
        if purpose == "pseudonym" and load_key(f"file:{keys_dir / name}", passphrase).key_id in used[-1:]:
            return (keys_dir / name).read_bytes()
    raise ConfigError("--keys-dir: the pseudonym key that the log uses is not there; is it of another log?")


def prepare_gateway(
    directory: Path, wish: GatewayWish, client: ServiceClient, *, keys_dir: Path, passphrase: str | None
) -> Prepared:
    """Prepare a gateway in a new directory.

    Args:
        directory: Where; its path in the configuration is absolute.
        wish: What the gateway shall be.
        client: Asks the service, with an administrator's token.
        keys_dir: The installation's keys: its pseudonym key is shared.
        passphrase: Protects the gateway's own keys.

    Raises:
        ConfigError: Something that was asked for cannot be, or the directory is there already.
        LedgerError: The service refused, or could not be asked.
        OSError: The file system failed.
    """
    directory = directory.resolve()
    agent_token = secrets.token_urlsafe(_AGENT_TOKEN_BYTES)
    # The log's own names come with the introduction; everything else is checked before the log learns of a key.
    _config(wish, directory, agent_token, {"log_id": "main", "tenant": "main", "environment": "main"})
    with appearing_directory(directory) as building:
        simulated = bool(client.get("/readyz")["simulated"])
        now_ms = SystemClock().now_ms()
        signing = generate_key("enforcer", ED25519, wish.enforcer_id, created_ms=now_ms, simulated=simulated)
        spool = generate_key("spool", "xsalsa20-poly1305", wish.enforcer_id, created_ms=now_ms, simulated=simulated)
        save_key(signing, building / "signing.json", passphrase)
        save_key(spool, building / "spool.json", passphrase)
        create_durably(building / "pseudonym.json", _shared_key(client, keys_dir, passphrase), mode=0o600)
        assert signing.public_key is not None
        wanted = {"enforcer_id": wish.enforcer_id, "public_key": encode_base64(signing.public_key)}
        introduced = client.post("/v1/enforcers", wanted)
        create_durably(building / _TOKEN, introduced["token"].encode() + b"\n", mode=0o600)
        text = _config(wish, directory, agent_token, introduced)
        create_durably(building / _CONFIG, text.encode(), mode=0o600)
    return Prepared(config=directory / _CONFIG, agent_token=agent_token, leaf_index=introduced["leaf_index"])
