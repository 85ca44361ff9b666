"""``tallystick tools manifest``: which definitions of a server's tools somebody answers for; made, signed, checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ledger.errors import ConfigError, VerificationError
from service.cli.output import counted, echo_json, json_option, save_new, say, with_exit_codes
from service.cli.signing_keys import make_signing_keys

if TYPE_CHECKING:
    from enforcement.tool_definitions import Definition

__all__ = ["manifest"]

_TRUST_FILE: Final = "tools.trust"
_FILES: Final = {"ed25519": "tools-ed25519.json", "ml-dsa-65": "tools-ml-dsa-65.json"}
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)


@click.group(short_help="Signed manifests of tools.")
def manifest() -> None:
    """Which definitions of a server's tools somebody answers for; gateways with `pins: {mode: listed}` hold to it."""


@manifest.command(short_help="Make keys that sign manifests.")
@click.argument("folder", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Whose keys they are.")
@json_option
@with_exit_codes
def keygen(folder: Path, name: str, *, as_json: bool) -> None:
    """Make an Ed25519 and an ML-DSA-65 key in FOLDER, and tools.trust with their public halves.

    TALLYSTICK_PASSPHRASE protects the key files.
    """
    make_signing_keys(folder, "tools", _FILES, _TRUST_FILE, name, as_json=as_json)


@manifest.command(short_help="Write a manifest of a server's tools.")
@click.option("--server", required=True, help="The server, as the gateway's list has it.")
@click.option("--tools", "listing", type=_FILE, required=True, help="What it answers to tools/list, as JSON.")
@click.option("--output", required=True, type=_NEW, help="A new file.")
@json_option
@with_exit_codes
def make(server: str, listing: Path, output: Path, *, as_json: bool) -> None:
    """Write which definitions the tools of a server have, to be looked at and signed.

    --tools is a JSON-RPC response to tools/list, or its result: an object with the member `tools`.
    """
    from enforcement.tool_manifests import make_manifest

    definitions = _listed(listing)
    save_new(output, make_manifest(server, definitions), "--output")
    digests = {one.name: one.digest for one in definitions}
    if as_json:
        echo_json({"server": server, "tools": digests})
        return
    say(f"{counted(len(digests), 'tools')} of {server}; look at them, then: tallystick tools manifest sign")


@manifest.command(short_help="Sign a manifest.")
@click.argument("statement", type=_FILE)
@click.option("--keys", "folder", required=True, type=_FOLDER, help="Where keygen made them.")
@click.option("--output", required=True, type=_NEW, help="A new file.")
@json_option
@with_exit_codes
def sign(statement: Path, folder: Path, output: Path, *, as_json: bool) -> None:
    """Sign the manifest STATEMENT with the keys that keygen made; writes a DSSE envelope."""
    from enforcement.tool_manifests import read_manifest, sign_manifest
    from ledger.keys import load_key
    from service.settings import passphrase
    from service.wiring.signing import tools_signer

    data = statement.read_bytes()
    server, digests = read_manifest(data)
    keys = [load_key(f"file:{folder / file}", passphrase()) for file in _FILES.values()]
    save_new(output, sign_manifest(data, [tools_signer(key) for key in keys]), "--output")
    if as_json:
        echo_json({"server": server, "tools": digests})
    else:
        say(f"signed {counted(len(digests), 'tools')} of {server}")


@manifest.command(short_help="Check a signed manifest.")
@click.argument("envelope", type=_FILE)
@click.option("--trust", required=True, type=_FILE, help="Public keys that must have signed it.")
@click.option("--server", help="The server that it must be about.")
@click.option("--tools", "listing", type=_FILE, help="What the server answers to tools/list: must be just that.")
@json_option
@with_exit_codes
def verify(envelope: Path, trust: Path, server: str | None, listing: Path | None, *, as_json: bool) -> None:
    """Check that exactly the trusted keys have signed ENVELOPE, and with --tools that a server lists what it names."""
    from enforcement.tool_manifests import verify_manifest
    from policies.trusted_keys import read_trusted_keys

    about, digests = verify_manifest(envelope.read_bytes(), server, read_trusted_keys(trust))
    if listing is not None:
        seen = {one.name: one.digest for one in _listed(listing)}
        wrong = sorted(str(name) for name in {*seen, *digests} if seen.get(name) != digests.get(str(name)))
        if wrong:
            raise VerificationError(f"what {about} lists is not what was signed: {', '.join(wrong)}")
    if as_json:
        echo_json({"server": about, "tools": digests})
    else:
        say(f"signed by those who must: {counted(len(digests), 'tools')} of {about}")


def _listed(path: Path) -> list[Definition]:
    """Return the definitions in a file.

    Raises:
        ConfigError: It holds no tools, or further pages follow.
        MalformedError: It cannot be read.
    """
    from enforcement.json_slices import object_members
    from enforcement.tool_definitions import read_definitions

    whole = path.read_text(encoding="utf-8", errors="surrogateescape")
    text = object_members(whole).get("result", whole)
    found = object_members(text)
    if "tools" not in found:
        raise ConfigError(f"{path.name} is no answer to tools/list: it has no member tools")
    if found.get("nextCursor", "null") != "null":
        raise ConfigError(f"{path.name} is one page of several: put the tools of all pages into one list")
    return read_definitions(text.encode(errors="surrogateescape"), {})
