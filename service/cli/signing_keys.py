"""Keys that sign what a person answers for: bundles, overlays of catalogues, manifests of tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.cli.output import echo_json, save_new, say, shown_path

__all__ = ["make_signing_keys"]


def make_signing_keys(
    folder: Path, purpose: str, files: Mapping[str, str], trust_file: str, name: str, *, as_json: bool
) -> None:
    """Make a key of each algorithm, and a file with their public halves; tell where it is.

    Args:
        folder: Where; made if it is not there, for its owner alone.
        purpose: What the keys may sign.
        files: Algorithm → name of the key's file.
        trust_file: Name of the file for whoever must trust them.
        name: Whose keys they are.
        as_json: Tell it to programs.

    Raises:
        ConfigError: No such purpose or algorithm, or a file is there already or cannot be written.
    """
    from ledger.clock import SystemClock
    from ledger.envelopes import EnvelopeKey
    from ledger.keys import generate_key, save_key
    from policies.signatures import format_trusted_keys
    from service.settings import passphrase

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = []
    for algorithm, file in files.items():
        key = generate_key(purpose, algorithm, name, created_ms=SystemClock().now_ms())
        save_key(key, folder / file, passphrase())
        assert key.public_key is not None
        public.append(EnvelopeKey(algorithm, key.public_key))
    save_new(folder / trust_file, format_trusted_keys(public).encode(), "FOLDER")
    if as_json:
        echo_json({"trust": str(folder / trust_file), "key_ids": [key.key_id for key in public]})
    else:
        say(f"give {shown_path(folder / trust_file)} to whoever must trust these keys")
