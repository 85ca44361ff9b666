"""``tallystick policy keygen``, ``sign``, ``verify``: signatures over bundles, made and checked without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from service.cli.options import BUNDLE_DIRECTORY
from service.cli.output import echo_json, json_option, save_new, say, with_exit_codes
from service.cli.signing_keys import make_signing_keys

__all__ = ["SIGNING"]

_TRUST_FILE: Final = "bundle.trust"
_FILES: Final = {"ed25519": "bundle-ed25519.json", "ml-dsa-44": "bundle-ml-dsa-44.json"}
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Make keys that sign bundles.")
@click.argument("folder", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Whose keys they are.")
@json_option
@with_exit_codes
def keygen(folder: Path, name: str, *, as_json: bool) -> None:
    """Make an Ed25519 and an ML-DSA-44 key in FOLDER, and bundle.trust with their public halves.

    TALLYSTICK_PASSPHRASE protects the key files.
    """
    make_signing_keys(folder, "bundle", _FILES, _TRUST_FILE, name, as_json=as_json)


@click.command(short_help="Sign a bundle.")
@BUNDLE_DIRECTORY
@click.option("--keys", "folder", required=True, type=_FOLDER, help="Where keygen made them.")
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A new file.")
@json_option
@with_exit_codes
def sign(directory: Path, folder: Path, output: Path, *, as_json: bool) -> None:
    """Sign the bundle in DIRECTORY with the keys that `tallystick policy keygen` made; writes a DSSE envelope."""
    from ledger.keys import load_key
    from policies.directories import read_bundle_directory
    from policies.signatures import sign_bundle
    from service.settings import passphrase
    from service.wiring.signing import bundle_signer

    keys = [load_key(f"file:{folder / file}", passphrase()) for file in _FILES.values()]
    bundle = read_bundle_directory(directory)
    save_new(output, sign_bundle(bundle, [bundle_signer(key) for key in keys]), "--output")
    if as_json:
        echo_json({"name": bundle.manifest.name, "revision": bundle.revision})
    else:
        say(f"signed {bundle.manifest.name} {bundle.revision}")


@click.command(short_help="Check a bundle's signature.")
@BUNDLE_DIRECTORY
@click.option("--signature", required=True, type=_FILE, help="The DSSE envelope.")
@click.option("--trust", required=True, type=_FILE, help="Public keys that must have signed it.")
@json_option
@with_exit_codes
def verify(directory: Path, signature: Path, trust: Path, *, as_json: bool) -> None:
    """Check that exactly the trusted keys have signed the bundle in DIRECTORY."""
    from policies.directories import read_bundle_directory
    from policies.signatures import verify_signature
    from policies.trusted_keys import read_trusted_keys

    bundle = read_bundle_directory(directory)
    verify_signature(signature.read_bytes(), bundle, read_trusted_keys(trust))
    if as_json:
        echo_json({"name": bundle.manifest.name, "revision": bundle.revision})
    else:
        say(f"signed by those who must: {bundle.manifest.name} {bundle.revision}")


SIGNING: Final = (keygen, sign, verify)
"""The commands of this module, for the group ``policy``."""
