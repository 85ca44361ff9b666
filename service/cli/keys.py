"""``tallystick keys``: making, showing and backing up keys; tokens for a first administrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click
import msgspec
import nacl.exceptions
import nacl.secret
import nacl.utils
from nacl.pwhash import argon2id

from ledger.clock import SystemClock
from ledger.errors import ConfigError, MalformedError
from ledger.files import create_durably
from ledger.notes import decode_base64, encode_base64
from service.cli.key_steps import STEPS
from service.cli.options import log_id_option
from service.cli.output import echo_json, json_option, say, with_exit_codes
from service.keyset import (
    KEY_FILES,
    TRUST_FILE,
    fingerprints,
    is_key_file,
    key_files,
    load_key_set,
    make_key_set,
    present_policy,
    require_empty,
    trust_policy,
    write_public_files,
)
from service.predecessor import PREDECESSOR_FILE
from service.roles import Role
from service.settings import load_settings, passphrase

__all__ = ["keys"]

_BACKUP_FORMAT = "tallystick.key-backup/2"
"""Version 1 held key files alone."""
_PUBLIC_FILES = (TRUST_FILE, PREDECESSOR_FILE)
_MIN_PASSPHRASE_CHARS = 12


@click.group()
def keys() -> None:
    """Keys of a service: make, replace, back up; first tokens."""


for step in STEPS:
    keys.add_command(step)


@keys.command(short_help="Make the keys of a new installation.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--origin",
    required=True,
    envvar="TALLYSTICK_ORIGIN",
    help="The log's name on its checkpoints, for ever, such as ledger.example.com/acme; or set TALLYSTICK_ORIGIN.",
)
@click.option(
    "--service-id",
    envvar="TALLYSTICK_SERVICE_ID",
    default="service",
    show_default=True,
    help="The service's own enforcer id.",
)
@click.option("--simulated", is_flag=True, help="For a demonstration: everything made with these keys says so.")
@json_option
@with_exit_codes
def init(directory: Path, origin: str, service_id: str, *, simulated: bool, as_json: bool) -> None:
    """Make the keys of a new installation in DIRECTORY.

    Log, pack, service, vault and pseudonym keys are separate files of mode 0600. Set TALLYSTICK_PASSPHRASE or
    TALLYSTICK_PASSPHRASE_FILE to protect them. Give auditors trust.policy, and the fingerprints by another way.
    """
    secret = passphrase()
    made = make_key_set(
        directory,
        origin=origin,
        service_id=service_id,
        created_ms=SystemClock().now_ms(),
        passphrase=secret,
        simulated=simulated,
    )
    if as_json:
        echo_json({"directory": str(directory), "trust_policy": trust_policy(made).encode()})
        return
    protection = "with a passphrase" if secret else "without a passphrase: set TALLYSTICK_PASSPHRASE to protect them"
    say(f"{len(KEY_FILES)} keys are in {directory}, {protection}.")
    say("Fingerprints, for auditors to compare by voice or on paper:")
    say(fingerprints(made, trust_policy(made)).rstrip())
    say(f"Auditors verify with {directory / 'trust.policy'}. Back the keys up now: tallystick keys backup.")


@keys.command(short_help="Show fingerprints and trust policy.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@with_exit_codes
def show(directory: Path, *, as_json: bool) -> None:
    """Show the public side of the keys in DIRECTORY: fingerprints, and the trust policy that lies beside them.

    Where each key stands, the log says: `keys list`.
    """
    found = load_key_set(directory, passphrase())
    policy = present_policy(directory, found)
    if as_json:
        echo_json(
            {
                "simulated": found.simulated,
                "keys": [
                    {"purpose": key.purpose, "algorithm": key.algorithm, "name": key.name, "key_id": key.key_id}
                    for key in found
                ],
                "trust_policy": policy.encode(),
            }
        )
        return
    say(fingerprints(found, policy).rstrip())
    say()
    say(policy.encode().rstrip())


def _backup_key(secret: str, salt: bytes) -> bytes:
    return argon2id.kdf(
        nacl.secret.SecretBox.KEY_SIZE,
        secret.encode(),
        salt,
        argon2id.OPSLIMIT_MODERATE,
        argon2id.MEMLIMIT_MODERATE,
    )


@keys.command(short_help="Write the keys to an encrypted file.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.password_option(
    "--backup-passphrase",
    envvar="TALLYSTICK_BACKUP_PASSPHRASE",
    help=f"Protects the backup; better: TALLYSTICK_BACKUP_PASSPHRASE. At least {_MIN_PASSPHRASE_CHARS} characters.",
)
@json_option
@with_exit_codes
def backup(directory: Path, file: Path, backup_passphrase: str, *, as_json: bool) -> None:
    """Write the keys in DIRECTORY to FILE, encrypted under a passphrase of its own.

    The trust policy beside them goes along: what it no longer lists shall not come back with a restore. Subject keys
    are left out on purpose: a backup of them would undo an erasure.
    """
    if len(backup_passphrase) < _MIN_PASSPHRASE_CHARS:
        raise ConfigError(f"the backup's passphrase has at least {_MIN_PASSPHRASE_CHARS} characters")
    if file.exists():
        raise ConfigError(f"{file} exists; name a new file")
    load_key_set(directory, passphrase())
    beside = [name for name in _PUBLIC_FILES if (directory / name).exists()]
    files = {name: (directory / name).read_text(encoding="utf-8") for name in (*key_files(directory), *beside)}
    salt = nacl.utils.random(argon2id.SALTBYTES)
    box = nacl.secret.SecretBox(_backup_key(backup_passphrase, salt)).encrypt(json.dumps(files).encode())
    document = {"format": _BACKUP_FORMAT, "salt": encode_base64(salt), "box": encode_base64(bytes(box))}
    create_durably(file, json.dumps(document).encode() + b"\n", mode=0o600)
    if as_json:
        echo_json({"file": str(file), "keys": sorted(filter(is_key_file, files))})
        return
    held = len(files) - len(beside)
    say(f"{held} keys are in {file}. Keep it apart from the machine, and its passphrase apart from it.")


class _Backup(msgspec.Struct, frozen=True):
    format: Literal["tallystick.key-backup/1", "tallystick.key-backup/2"]
    salt: str
    box: str


def _backed_up(opened: bytes) -> dict[str, str]:
    try:
        files = msgspec.json.decode(opened, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise MalformedError("the backup does not hold key files") from error
    if not KEY_FILES.keys() <= files.keys() or not all(is_key_file(name) or name in _PUBLIC_FILES for name in files):
        raise MalformedError("the backup does not hold the key files that this version knows")
    return files


@keys.command(short_help="Read the keys back from such a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--backup-passphrase",
    envvar="TALLYSTICK_BACKUP_PASSPHRASE",
    prompt=True,
    hide_input=True,
    help="Opens the backup; better: TALLYSTICK_BACKUP_PASSPHRASE.",
)
@json_option
@with_exit_codes
def restore(file: Path, directory: Path, backup_passphrase: str, *, as_json: bool) -> None:
    """Write the keys of the backup FILE to DIRECTORY, which must not hold any."""
    try:
        document = msgspec.json.decode(file.read_bytes(), type=_Backup)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError("not a backup of keys") from error
    salt, box = decode_base64(document.salt), decode_base64(document.box)
    if len(salt) != argon2id.SALTBYTES:
        raise MalformedError("not a backup of keys")
    try:
        opened = nacl.secret.SecretBox(_backup_key(backup_passphrase, salt)).decrypt(box)
    except nacl.exceptions.CryptoError as error:
        raise ConfigError("the passphrase does not open the backup") from error
    files = _backed_up(opened)
    require_empty(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        create_durably(directory / name, text.encode(), mode=0o644 if name in _PUBLIC_FILES else 0o600)
    restored = load_key_set(directory, passphrase())
    policy = present_policy(directory, restored)
    write_public_files(directory, restored, policy)
    held = sorted(filter(is_key_file, files))
    if as_json:
        echo_json({"directory": str(directory), "keys": held, "trust_policy": policy.encode()})
        return
    say(f"{len(held)} keys are in {directory}.")
    say(fingerprints(restored, policy).rstrip())
    if TRUST_FILE not in files:
        say("This backup is of an earlier version and knows nothing of keys that were disowned or given up:")
        say("once the service runs, compare `tallystick keys list` with trust.policy before you hand that out.")


@keys.command(short_help="Issue a first token, on the service's own machine.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role if role is not Role.ENFORCER]),
    required=True,
    help="What it may do; see docs/guide.md.",
)
@click.option("--name", required=True, help="Whose token: a person, a team, a machine.")
@click.option(
    "--lifetime-days", type=click.IntRange(1, 3650), default=None, help="How long it counts; for ever if left out."
)
@log_id_option
@json_option
@with_exit_codes
def token(role: str, name: str, lifetime_days: int | None, log_id: str | None, *, as_json: bool) -> None:
    """Issue a token on the service's own machine, for a first administrator.

    Reads the service's settings (TALLYSTICK_DATA_DIR, …). Afterwards issue tokens through the API, which records it.
    """
    from ledger.database import open_engine
    from migrations.schema import require_current
    from service.auth import TokenStore

    settings = load_settings(log_id=log_id)
    settings.require_database()
    engine = open_engine(settings.effective_database_url)
    require_current(engine)
    issued = TokenStore(engine, SystemClock()).issue(settings.log_id, Role(role), name, lifetime_days=lifetime_days)
    engine.dispose()
    if as_json:
        echo_json({"name": name, "role": role, "token": issued})
    else:
        say(issued)
