"""Becoming an enforcer on this machine: keys that never leave it, a proof that they are here, and a configuration.

The order is such that whoever was interrupted does it again and gets the same: the keys are durable before the service
hears of them, and the configuration, which says that all is there, is written last. Until then the directory holds a
file ``enrolling`` with the key to which the pseudonym key is sealed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nacl.public
import yaml

from enforcement.config_files import parse_config, read_secret
from ledger.clock import SystemClock
from ledger.envelopes import ED25519
from ledger.errors import ConfigError, UpstreamError, VerificationError
from ledger.files import create_durably, replace_durably
from ledger.keys import LocalKey, decode_key, generate_key, load_key, save_key
from ledger.notes import decode_base64, encode_base64
from policies.signatures import parse_trusted_keys
from service.auth import new_token, token_digest
from service.cli.client import ServiceClient, service_section
from service.enrolling import EnrolmentClaim, claim_bytes, log_of_enrolment_token, open_sealed, trust_digest
from service.version import VERSION

__all__ = ["Joined", "TokenFile", "Wish", "join", "read_token_file", "token_file"]

_CONFIG: Final = "gateway.yaml"
_TOKEN: Final = "service.token"  # noqa: S105  # a file's name
_SEALING: Final = "enrolling"
_BUNDLE_KEYS: Final = "bundle-keys"
_TRUST: Final = "trust.policy"
_AGENT_TOKEN_BYTES: Final = 32
_TRUST_LINE: Final = re.compile(r"trust sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """What an administrator hands over: the token, and a digest of whom its holder may believe that it leads to.

    Attributes:
        token: The enrolment token.
        trust_sha256: See `service.enrolling.trust_digest`; None if only the token was handed over.
    """

    token: str
    trust_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the gateway shall be.

    Attributes:
        enforcer_id: Its name in the ledger.
        url: The service.
        servers: URLs of MCP servers by name; none if they stand in a file of their own.
        agent: A first agent that may call, or None.
        roles: The agent's roles.
        zone: IANA zone in which policies read the hour.
    """

    enforcer_id: str
    url: str
    servers: Mapping[str, str]
    agent: str | None
    roles: tuple[str, ...]
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A gateway that is enrolled.

    Attributes:
        config: Its configuration file.
        leaf_index: Leaf of the record that introduces its key.
        signed_bundles: It takes up no bundle but a signed one.
        trust_checked: Whom it trusts is what the administrator's file says.
        agent_token: The first agent's token, if there is one; kept nowhere else.
    """

    config: Path
    leaf_index: int
    signed_bundles: bool
    trust_checked: bool
    agent_token: str | None


def token_file(token: str, trust_sha256: str) -> bytes:
    """Return the file that an administrator hands over; `read_token_file` reads it."""
    return f"{token}\ntrust sha256:{trust_sha256}\n".encode()


def read_token_file(path: Path) -> TokenFile:
    """Read what an administrator handed over.

    Raises:
        ConfigError: It cannot be read, others can read it, or it is none.
    """
    lines = read_secret(f"file:{path}").split("\n")
    trust = _TRUST_LINE.fullmatch(lines[1]) if len(lines) == 2 else None  # noqa: PLR2004  # token and digest
    if log_of_enrolment_token(lines[0]) is None or (len(lines) > 1 and trust is None):
        raise ConfigError(f"{path.name} holds no enrolment token: tallystick enroll token makes one")
    return TokenFile(token=lines[0], trust_sha256=None if trust is None else trust[1])


def join(directory: Path, wish: Wish, given: TokenFile, *, passphrase: str | None) -> Joined:
    """Enrol this machine as a gateway; done again after an interruption, it goes on where it was.

    Args:
        directory: Where its files go; its path in the configuration is absolute.
        wish: What the gateway shall be.
        given: The token.
        passphrase: Protects the gateway's keys.

    Raises:
        ConfigError: Something that was asked for cannot be, or the directory is another's.
        VerificationError: The service told to trust others than the administrator's file says.
        LedgerError: The service refused, or could not be asked.
        OSError: The file system failed.
    """
    directory = directory.resolve()
    if (directory / _CONFIG).exists():
        raise ConfigError(f"{directory} holds a gateway that is enrolled already")
    client = ServiceClient(wish.url, given.token)
    found = client.get("/v1/enrolments")
    if found["enforcer_id"] != wish.enforcer_id:
        raise ConfigError("--id: the enrolment token is for another gateway")
    agent_token = None if wish.agent is None else secrets.token_urlsafe(_AGENT_TOKEN_BYTES)
    # What was asked for is checked before anything is made or anybody hears of a key.
    _configuration(wish, directory, agent_token, found, signed=False)
    with_keys = _make_keys(directory, wish.enforcer_id, found, passphrase)
    claim = _claim(wish.enforcer_id, given.token, with_keys)
    signature = with_keys.signing.signing_key().sign(claim_bytes(claim)).signature
    request = {
        name: getattr(claim, name) for name in ("enforcer_id", "public_key", "sealing_key", "token_sha256", "version")
    }
    answer = client.post("/v1/enrolments", {**request, "signature": encode_base64(signature)})
    checked = _check_trust(answer, given)
    _keep_answer(directory, answer, with_keys, passphrase)
    signed = answer["bundle_keys"] is not None
    text = _configuration(wish, directory, agent_token, answer, signed=signed, proven=checked)
    replace_durably(directory / _CONFIG, text.encode(), mode=0o600)
    (directory / _SEALING).unlink(missing_ok=True)
    return Joined(
        config=directory / _CONFIG,
        leaf_index=answer["leaf_index"],
        signed_bundles=signed,
        trust_checked=checked,
        agent_token=agent_token,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    signing: LocalKey
    sealing: nacl.public.PrivateKey
    token: str


def _make_keys(directory: Path, enforcer_id: str, found: Mapping[str, Any], passphrase: str | None) -> _Made:
    """Make what is not there yet; each file is whole and durable, or is not there."""
    if directory.exists() and any(directory.iterdir()) and not (directory / _SEALING).exists():
        raise ConfigError(f"{directory} is not empty; name a new directory")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (directory / _SEALING).exists():
        create_durably(
            directory / _SEALING, encode_base64(bytes(nacl.public.PrivateKey.generate())).encode(), mode=0o600
        )
    simulated, now_ms = bool(found["simulated"]), SystemClock().now_ms()
    for name, purpose, algorithm in (("signing", "enforcer", ED25519), ("spool", "spool", "xsalsa20-poly1305")):
        if not (directory / f"{name}.json").exists():
            key = generate_key(purpose, algorithm, enforcer_id, created_ms=now_ms, simulated=simulated)
            save_key(key, directory / f"{name}.json", passphrase)
    if not (directory / _TOKEN).exists():
        create_durably(directory / _TOKEN, new_token(found["log_id"]).encode() + b"\n", mode=0o600)
    return _Made(
        signing=load_key(f"file:{directory / 'signing.json'}", passphrase),
        sealing=nacl.public.PrivateKey(decode_base64(read_secret(f"file:{directory / _SEALING}"))),
        token=read_secret(f"file:{directory / _TOKEN}"),
    )


def _claim(enforcer_id: str, enrolment_token: str, made: _Made) -> EnrolmentClaim:
    assert made.signing.public_key is not None
    return EnrolmentClaim(
        enforcer_id=enforcer_id,
        enrolment=token_digest(enrolment_token),
        public_key=encode_base64(made.signing.public_key),
        sealing_key=encode_base64(bytes(made.sealing.public_key)),
        token_sha256=token_digest(made.token),
        version=VERSION,
    )


def _check_trust(answer: Mapping[str, Any], given: TokenFile) -> bool:
    """Hold whom the service names against what the administrator handed over; returns whether there was anything."""
    if given.trust_sha256 is None:
        return False
    if trust_digest(answer["log_id"], answer["trust_policy"], answer["bundle_keys"]) != given.trust_sha256:
        raise VerificationError(
            "the service names other keys to trust than those of the token's file: it is another service, or its keys "
            "were replaced since; ask for a new token"
        )
    return True


def _keep_answer(directory: Path, answer: Mapping[str, Any], made: _Made, passphrase: str | None) -> None:
    shared = decode_key(open_sealed(bytes(made.sealing), decode_base64(answer["pseudonym_key"])))
    if (shared.purpose, shared.key_id) != ("pseudonym", answer["pseudonym_key_id"]):
        raise UpstreamError("the service handed out a key that is not the pseudonym key in force")
    # A file that an interrupted attempt left is of an earlier answer: this one counts.
    (directory / "pseudonym.json").unlink(missing_ok=True)
    save_key(shared, directory / "pseudonym.json", passphrase)
    replace_durably(directory / _TRUST, answer["trust_policy"].encode())
    if answer["bundle_keys"] is not None:
        parse_trusted_keys(answer["bundle_keys"])
        replace_durably(directory / _BUNDLE_KEYS, answer["bundle_keys"].encode())


def _configuration(
    wish: Wish,
    directory: Path,
    agent_token: str | None,
    names: Mapping[str, Any],
    *,
    signed: bool,
    proven: bool = False,
) -> str:
    """Return the configuration as YAML.

    Args:
        wish: What the gateway shall be.
        directory: Where its files are.
        agent_token: The first agent's token, or None.
        names: What the service said of the log.
        signed: Bundles must carry signatures of the keys beside it.
        proven: Acknowledgements must be proven by the trust policy beside it. Only if that policy is what the
            administrator's file says: one that the service alone named would be trust from the thing being verified.

    Raises:
        ConfigError: Something that was asked for cannot stand in it.
    """
    settings: dict[str, Any] = {
        "enforcer_id": wish.enforcer_id,
        "log_id": names["log_id"],
        "tenant": names["tenant"],
        "environment": names["environment"],
        "zone": wish.zone,
        "state_directory": str(directory / "state"),
        "service": service_section(wish.url, f"file:{directory / _TOKEN}"),
        "keys": {name: f"file:{directory / name}.json" for name in ("signing", "pseudonym", "spool")},
    }
    if proven:
        settings["service"]["trust"] = str(directory / _TRUST)
    if signed:
        settings["bundles"] = {"trusted_keys": str(directory / _BUNDLE_KEYS)}
    if agent_token is not None:
        digest = hashlib.sha256(agent_token.encode()).hexdigest()
        settings["principals"] = [{"token_sha256": digest, "agent": wish.agent, "roles": list(wish.roles)}]
    if wish.servers:
        settings["servers"] = [{"name": name, "url": url} for name, url in wish.servers.items()]
    else:
        settings["servers_file"] = "servers.yaml"
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    parse_config(text)
    return text
