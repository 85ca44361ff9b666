"""``tallystick keys rotate``, ``introduce``, ``retire``, ``compromise``, ``succeed`` and ``list``.

New key files are made here, on the service's machine; every step that counts is the service's, and a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from ledger.clock import SystemClock
from ledger.errors import ConfigError, TallystickError
from ledger.files import replace_durably
from ledger.keys import generate_key, save_key, save_key_file
from ledger.remote_keys import RemoteKey, SigningKey, encode_remote_key
from ledger.succession import commit_to
from ledger.trust import TrustPolicy, parse_trust_policy
from service.cli.client import ServiceClient, service_options
from service.cli.options import log_id_option
from service.cli.output import echo_json, json_option, say, table, with_exit_codes
from service.keyset import (
    FINGERPRINTS_FILE,
    KEY_FILES,
    TRUST_FILE,
    fingerprints,
    load_key_set,
    make_key_set,
    next_key_file,
    trust_policy,
)
from service.predecessor import save_predecessor, with_predecessor
from service.settings import load_settings, passphrase

__all__ = ["STEPS"]

_PURPOSES: Final = {"log": "log", "pack": "pack", "service": "enforcer", "pseudonym": "pseudonym"}
"""What can be replaced, as it is called here and in key files."""

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_key_id = click.argument("key_id", metavar="KEY_ID")


def _algorithms(purpose: str, wanted: str | None) -> list[str]:
    known = [algorithm for found, algorithm in KEY_FILES.values() if found == purpose]
    if wanted is not None and wanted not in known:
        raise ConfigError(f"such a key is of {' or '.join(known)}, not of {wanted}")
    return known if wanted is None else [wanted]


def _make(directory: Path, purpose: str, algorithm: str, kms: str | None) -> tuple[Path, SigningKey]:
    """Write a new key file beside the others."""
    present = load_key_set(directory, passphrase())
    name = next(key.name for key in present.all() if key.purpose == purpose)
    path = directory / next_key_file(directory, purpose, algorithm)
    now_ms = SystemClock().now_ms()
    if kms is None:
        key = generate_key(purpose, algorithm, name, created_ms=now_ms, simulated=present.simulated)
        save_key(key, path, passphrase())
        return path, key
    from service.wiring.signing import fetch_public_key

    found, public_key = fetch_public_key(kms)
    if found != algorithm:
        raise ConfigError(f"the key of AWS KMS is of {found}, not of {algorithm}")
    remote = RemoteKey(
        algorithm=algorithm,
        name=name,
        public_key=public_key,
        uri=kms,
        created_ms=now_ms,
        simulated=present.simulated,
    )
    save_key_file(encode_remote_key(remote), path)
    return path, remote


def _client(directory: Path, url: str, token: str | None) -> ServiceClient:
    """Return a client of the service; where its keys are here, of the log whose keys they are.

    Raises:
        ConfigError: The token is of another log: its keys would be trusted, and new ones made, beside this log's.
    """
    client, path = ServiceClient(url, token), directory / TRUST_FILE
    if path.exists():
        told = parse_trust_policy(str(client.get("/v1/keys")["trust_policy"]).encode())
        theirs, here = ({key.name for key in policy.logs} for policy in (told, parse_trust_policy(path.read_bytes())))
        if theirs.isdisjoint(here):
            raise ConfigError(f"the token is of the log {', '.join(theirs)}, whose keys are not in {directory}")
    return client


def _take_over(directory: Path, answer: dict[str, Any]) -> bool:
    """Put the trust policy that the service tells, and fingerprints, beside the keys, if this is their machine."""
    path = directory / TRUST_FILE
    if not path.exists():
        return False
    told, present = parse_trust_policy(str(answer["trust_policy"]).encode()), parse_trust_policy(path.read_bytes())
    origins = {key.name for key in told.logs}
    # What stands there of other logs, such as the one before this, and of witnesses is not the service's to tell.
    others = [key for key in present.logs if key.name not in origins]
    _write_policy(directory, replace(present, logs=(*told.logs, *others)))
    return True


def _write_policy(directory: Path, policy: TrustPolicy) -> None:
    replace_durably(directory / TRUST_FILE, policy.encode().encode())
    keys = load_key_set(directory, passphrase())
    replace_durably(directory / FINGERPRINTS_FILE, fingerprints(keys, policy).encode())


def _tell(directory: Path, done: str, answer: dict[str, Any], *, as_json: bool) -> None:
    written = _take_over(directory, answer)
    if as_json:
        echo_json(answer)
        return
    say(f"{done}, at leaf {answer['leaf_index']}.")
    if written:
        say(f"Auditors verify with {directory / TRUST_FILE}, which is new.")


@click.command(short_help="Make a new key beside the old one, and introduce it.")
@click.argument("purpose", type=click.Choice(list(_PURPOSES)))
@click.option("--algorithm", help="ed25519 or ml-dsa-44, where there are two; both if left out.")
@click.option("--kms", metavar="URI", help="For a log key: awskms:KEY?region=… instead of a key in a file.")
@click.option("--prepare", is_flag=True, help="Only make the file: copy it to every machine, then `keys introduce`.")
@log_id_option
@service_options
@json_option
@with_exit_codes
def rotate(
    purpose: str,
    algorithm: str | None,
    kms: str | None,
    log_id: str | None,
    url: str,
    token: str | None,
    *,
    prepare: bool,
    as_json: bool,
) -> None:
    """Make a new key for PURPOSE beside the old one and introduce it; then both count until the old one is retired.

    Runs on the service's machine, while the service runs. Hand auditors the new trust.policy before `keys retire`.
    """
    if kms is not None and (purpose != "log" or algorithm is None):
        raise ConfigError("--kms is for a log key, and needs --algorithm")
    directory = load_settings(log_id=log_id).keys_dir
    client = None if prepare else _client(directory, url, token)
    made = [_make(directory, _PURPOSES[purpose], kind, kms) for kind in _algorithms(_PURPOSES[purpose], algorithm)]
    items: list[dict[str, Any]] = []
    for path, key in made:
        answer: dict[str, Any] = {}
        if client is not None:
            answer = _introduce(client, key.key_id)
            _take_over(directory, answer)
        items.append({"file": str(path), "key_id": key.key_id, "algorithm": key.algorithm, **answer})
    if as_json:
        echo_json({"purpose": purpose, "items": items})
        return
    _tell_rotation(purpose, items, directory)


def _introduce(client: ServiceClient, key_id: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = client.post("/v1/keys", {"key_id": key_id})
    except TallystickError as error:
        raise type(error)(f"{error}; the new key's file is there: `tallystick keys introduce {key_id}`") from error
    return answer


def _tell_rotation(purpose: str, items: Sequence[dict[str, Any]], directory: Path) -> None:
    for item in items:
        where = f"introduced at leaf {item['leaf_index']}" if "leaf_index" in item else "not introduced yet"
        say(f"{item['algorithm']} key {item['key_id']} in {item['file']}, {where}")
    if "leaf_index" not in items[0]:
        say("Copy the file to every machine of this service, then: tallystick keys introduce KEY_ID")
    elif purpose == "log":
        say(f"Old and new keys sign. Hand auditors {directory / TRUST_FILE}; then: tallystick keys retire OLD_KEY_ID")
    elif purpose == "pseudonym":
        say("Give each gateway a copy of the new key, and restart it; the old file stays, or old names are not found.")
    else:
        say("The new key is used. End the old one: tallystick keys retire OLD_KEY_ID")


@click.command(short_help="Introduce a key whose file is on every machine.")
@_key_id
@log_id_option
@service_options
@json_option
@with_exit_codes
def introduce(key_id: str, log_id: str | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Introduce the key KEY_ID, which `keys rotate --prepare` has made; it is used from then on."""
    directory = load_settings(log_id=log_id).keys_dir
    answer = _client(directory, url, token).post("/v1/keys", {"key_id": key_id})
    _tell(directory, f"The key {key_id} is introduced", answer, as_json=as_json)


@click.command(short_help="End a key that has a successor.")
@_key_id
@click.option("--give-up-algorithm", is_flag=True, help="End the last log key of its algorithm: the other signs alone.")
@log_id_option
@service_options
@json_option
@with_exit_codes
def retire(
    key_id: str, log_id: str | None, url: str, token: str | None, *, give_up_algorithm: bool, as_json: bool
) -> None:
    """End the key KEY_ID, whose successor is in use.

    From then on auditors who only have the old trust.policy are told that their trust is not met (status 3).
    """
    directory = load_settings(log_id=log_id).keys_dir
    wanted = {"give_up_algorithm": give_up_algorithm}
    answer = _client(directory, url, token).post(f"/v1/keys/{key_id}/retirement", wanted)
    _tell(directory, f"The key {key_id} is retired", answer, as_json=as_json)


@click.command(short_help="Declare a key compromised after a tree size.")
@_key_id
@click.option(
    "--after-size", type=click.IntRange(min=0), required=True, help="The last tree size for which it was yours alone."
)
@click.option("--purpose", required=True, help="Why, in eight characters or more; recorded, in the vault.")
@log_id_option
@service_options
@json_option
@with_exit_codes
def compromise(
    key_id: str, after_size: int, purpose: str, log_id: str | None, url: str, token: str | None, *, as_json: bool
) -> None:
    """Declare that the key KEY_ID was in other hands after a tree size; it cannot be taken back.

    A key that the service uses needs a successor first (`keys rotate`). docs/keys.md says what still holds.
    """
    directory = load_settings(log_id=log_id).keys_dir
    wanted = {"after_size": after_size, "purpose": purpose}
    answer = _client(directory, url, token).post(f"/v1/keys/{key_id}/compromise", wanted)
    _tell(directory, f"The key {key_id} is declared compromised after size {after_size}", answer, as_json=as_json)


@click.command("list", short_help="Show where each key stands.")
@service_options
@json_option
@with_exit_codes
def list_keys(url: str, token: str | None, *, as_json: bool) -> None:
    """Show every key of the service with its state, by the log's own records."""
    answer = ServiceClient(url, token).get("/v1/keys")
    if as_json:
        echo_json(answer)
        return
    header = ("purpose", "algorithm", "key id", "state", "from leaf", "to leaf", "file")
    table(header, [_cells(item) for item in answer["items"]])


def _cells(item: dict[str, Any]) -> list[object]:
    shown = ["" if item[name] is None else item[name] for name in ("first_leaf", "last_leaf")]
    here = "here" if item["here"] else "not here"
    return [item["purpose"], item["algorithm"], item["key_id"], item["state"], *shown, here]


@click.command(short_help="Open a new log in place of one whose keys are lost.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--origin", required=True, help="The new log's name on its checkpoints; not the old one's.")
@click.option(
    "--service-id",
    envvar="TALLYSTICK_SERVICE_ID",
    default="service",
    show_default=True,
    help="The new service's own enforcer id.",
)
@click.option(
    "--from", "checkpoint", type=_FILE, required=True, help="The old log's last checkpoint: from its anchor or log."
)
@click.option("--trust", type=_FILE, required=True, help="The old log's trust policy.")
@click.option("--reason", default="key_lost", show_default=True, help="Why, as a name; it stands in the new log.")
@click.option("--simulated", is_flag=True, help="For a demonstration: everything made with these keys says so.")
@json_option
@with_exit_codes
def succeed(
    directory: Path,
    origin: str,
    service_id: str,
    checkpoint: Path,
    trust: Path,
    reason: str,
    *,
    simulated: bool,
    as_json: bool,
) -> None:
    """Make keys in DIRECTORY for a log that succeeds another and commits to its last checkpoint.

    The new log needs a data directory of its own. Its first records name the old log's origin, size, root and the
    SHA-256 of that checkpoint, signed with the new keys.
    """
    old, data = parse_trust_policy(trust.read_bytes()), checkpoint.read_bytes()
    succession = commit_to(data, old, reason=reason)
    if origin == succession.origin:
        raise ConfigError("a new log needs an origin of its own: nobody could tell its checkpoints from the old one's")
    made = make_key_set(
        directory,
        origin=origin,
        service_id=service_id,
        created_ms=SystemClock().now_ms(),
        passphrase=passphrase(),
        simulated=simulated,
    )
    save_predecessor(directory, data, reason=reason)
    policy = with_predecessor(trust_policy(made), old, succession.origin)
    _write_policy(directory, policy)
    if as_json:
        echo_json(
            {"directory": str(directory), "succession": msgspec.to_builtins(succession), "trust": policy.encode()}
        )
        return
    say(f"Keys for {origin} are in {directory}. Its first start commits to {succession.size} leaves of")
    say(f"{succession.origin}, root {succession.root}.")
    say(f"Auditors verify both logs with {directory / TRUST_FILE}; let them compare its fingerprints by another way.")


STEPS: Final = (rotate, introduce, retire, compromise, succeed, list_keys)
