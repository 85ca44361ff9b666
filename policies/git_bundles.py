"""Bundles from a commit of a git repository, read from its objects: nothing is checked out.

No hook, filter, attribute or replacement of the repository plays a part, nothing is fetched, and the work tree is not
looked at. The commit is named by its whole id. A symbolic link or a submodule is refused.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from ledger.errors import ConfigError, PolicySyntaxError
from policies.bundles import MAX_FILE_BYTES, MAX_FILES, Bundle, bundle_from_files

__all__ = ["read_bundle_commit"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_ENTRY: Final = re.compile(rb"([0-7]{6}) (\w+) ([0-9a-f]{40,64}) +(-|\d+)\t(.+)", re.DOTALL)
_PLAIN: Final = (b"100644", b"100755")
_SECONDS: Final = 60
_ENVIRONMENT: Final = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


def _git(repository: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(repository), "-c", "core.fsmonitor=false", "-c", "protocol.allow=never", *arguments]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), **_ENVIRONMENT}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603  # no shell; the arguments are ours, ids, and a path behind --
    except FileNotFoundError as error:
        raise ConfigError("git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise PolicySyntaxError(f"git took longer than {_SECONDS} s") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PolicySyntaxError(f"git: {' '.join(last)[:200]}")
    return done.stdout


def _blobs(repository: Path, commit: str, folder: str) -> dict[str, str]:
    """Return path below the folder → object id."""
    tree = f"{commit}:{folder}" if folder else f"{commit}^{{tree}}"
    found: dict[str, str] = {}
    for line in _git(repository, "ls-tree", "-r", "-z", "-l", "--full-tree", tree).split(b"\0")[:-1]:
        entry = _ENTRY.fullmatch(line)
        path = "" if entry is None else entry[5].decode("utf-8", "replace")
        if entry is None or entry[1] not in _PLAIN or entry[2] != b"blob":
            raise PolicySyntaxError(f"{path[:200]!a}: a bundle holds plain files only")
        if int(entry[4]) > MAX_FILE_BYTES:
            raise PolicySyntaxError(f"{path[:200]!a}: a file of a bundle has at most {MAX_FILE_BYTES} bytes")
        found[path] = entry[3].decode()
        if len(found) > MAX_FILES + 1:
            raise PolicySyntaxError(f"a bundle has at most {MAX_FILES} files")
    return found


def read_bundle_commit(repository: Path, commit: str, folder: str = "") -> Bundle:
    """Return the bundle that a folder of a commit holds.

    Args:
        repository: The repository, or its work tree.
        commit: The commit's whole id, in lower case: a branch, a tag or a short id may mean something else tomorrow.
        folder: The bundle's folder in it, with ``/`` between parts; the root if empty.

    Raises:
        ConfigError: That is no whole commit id; or git is not installed.
        PolicySyntaxError: There is no such commit or folder, or it holds no sound bundle.
    """
    if not _COMMIT.fullmatch(commit):
        raise ConfigError("name the commit by its whole id: 40 or 64 hexadecimal digits in lower case")
    if _git(repository, "cat-file", "-t", commit).strip() != b"commit":
        raise PolicySyntaxError(f"{commit} is no commit")
    blobs = _blobs(repository, commit, folder.strip("/"))
    return bundle_from_files({path: _git(repository, "cat-file", "blob", blob) for path, blob in blobs.items()})
