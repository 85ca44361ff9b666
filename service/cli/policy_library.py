"""``tallystick policy library``: the bundles that ship, to be read, and to be started from."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from policies.bundles import MANIFEST_PATH, BundleManifest, bundle_from_files
from service.cli.output import echo_json, json_option, say, shown_path, table, with_exit_codes

__all__ = ["library"]


@click.group()
def library() -> None:
    """Bundles that ship with the program, to start from."""


@library.command("list")
@json_option
@with_exit_codes
def list_bundles(*, as_json: bool) -> None:
    """List the bundles that ship."""
    from policies.directories import library_names, read_library_bundle

    manifests = [read_library_bundle(name).manifest for name in library_names()]
    if as_json:
        echo_json([{"name": item.name, "engine": item.engine, "description": item.description} for item in manifests])
        return
    table(("name", "engine", "description"), [(item.name, item.engine, item.description) for item in manifests])


@library.command(short_help="Show what a bundle decides.")
@click.argument("name")
@json_option
@with_exit_codes
def show(name: str, *, as_json: bool) -> None:
    """Show what the shipped bundle NAME decides, and which data make it yours."""
    from policies.directories import read_library_bundle

    bundle = read_library_bundle(name)
    if as_json:
        manifest = bundle.manifest
        echo_json(
            {
                "name": manifest.name,
                "engine": manifest.engine,
                "description": manifest.description,
                "revision": bundle.revision,
                "files": list(bundle.files),
            }
        )
        return
    say(bundle.text("README.md").rstrip("\n"))


@library.command(short_help="Copy a bundle into a new directory.")
@click.argument("name")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", "called", default=None, help="Name of the copy in records; that of DIRECTORY if left out.")
@json_option
@with_exit_codes
def copy(name: str, directory: Path, called: str | None, *, as_json: bool) -> None:
    """Copy the shipped bundle NAME into the new DIRECTORY, to be made your own."""
    from policies.directories import read_library_bundle, write_bundle_directory

    shipped = read_library_bundle(name)
    target = directory.absolute()
    # Read again as a whole, so that a name that no record could hold is refused before anything is written.
    bundle = bundle_from_files({**shipped.files, MANIFEST_PATH: _renamed(shipped.manifest, called or target.name)})
    write_bundle_directory(bundle, target)
    if as_json:
        echo_json({"name": bundle.manifest.name, "revision": bundle.revision, "directory": target})
    else:
        say(f"{shown_path(target)}: {bundle.manifest.name}, from {name}; its README.md says what to edit")


def _renamed(manifest: BundleManifest, name: str) -> bytes:
    """Return a manifest under another name, as JSON."""
    return msgspec.json.encode(msgspec.structs.replace(manifest, name=name))
