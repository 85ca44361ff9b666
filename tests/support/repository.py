"""Checks of the repository itself. Each returns the faults that it found, as sentences; none means all is well."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_BYTES = 1_000_000

_UNTRACKED = {
    ".git",
    ".venv",
    ".cache",
    ".demo",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".import_linter_cache",
    ".hypothesis",
    "__pycache__",
    "secrets",
    "bin",
    "out",
    "build",
    "dist",
}

# Written in pieces: this file is searched like every other.
REGISTRY_HOSTS = tuple(
    "".join(pieces)
    for pieces in (
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("registry.npmjs", ".org"),
        ("registry.yarnpkg", ".com"),
        ("proxy.golang", ".org"),
        ("sum.golang", ".org"),
        ("crates", ".io"),
        ("deb.debian", ".org"),
        ("security.debian", ".org"),
        ("archive.ubuntu", ".com"),
        ("registry-1.docker", ".io"),
        ("repo1.maven", ".org"),
        ("pkg", ".dev/artifacts"),
    )
)
_HOMES = re.compile(r"(?<![\w./<>$}-])/(?:home|Users|root|work)/[A-Za-z0-9_.-]+")
_PIN = re.compile(r"[a-z0-9][a-z0-9._-]*==[^\s;]+(?: ; .+?)? \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
_LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:|#)([^)#\s]+)")
_TARGET = re.compile(r"^(?!\.)([A-Za-z0-9_-]+(?: [A-Za-z0-9_-]+)*):(?!=)(.*)$", flags=re.MULTILINE)
_IMAGE = re.compile(r"[a-z0-9./-]+:(?P<tag>[A-Za-z0-9_.-]+)(?:@sha256:[0-9a-f]{64})?")
_RELEASE = re.compile(r"^## \[(?P<name>[^\]]+)\](?P<rest>.*)$", flags=re.MULTILINE)
_CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
_ADR_STATUS = re.compile(r"# .+\n\nStatus: (?:accepted|superseded by \d{4})\. Date: \d{4}-\d{2}-\d{2}\.\n\n")
ADR_HEADINGS = ("Question", "Options", "Choice", "Consequences")


def tracked_files() -> list[Path]:
    """Return the files of the repository; without git (a downloaded archive) all that are not made by a build."""
    paths = [path for path in ROOT.rglob("*") if not _UNTRACKED & set(path.relative_to(ROOT).parts)]
    if shutil.which("git") and (ROOT / ".git").exists():
        # git refuses a folder that belongs to somebody else, as in a mounted container: that is as if there were none.
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
        if done.returncode == 0:
            paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return sorted(path for path in paths if path.is_file())


def text_of(path: Path) -> str | None:
    """Return a file's text, or None if it is not UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and text of every tracked text file."""
    for path in tracked_files():
        if (text := text_of(path)) is not None:
            yield path.relative_to(ROOT).as_posix(), text


def host_faults(text: str) -> list[str]:
    """Find package registries: where packages come from is the machine's business."""
    return [f"names the registry host {host}" for host in REGISTRY_HOSTS if host in text]


def path_faults(text: str) -> list[str]:
    """Find absolute paths of somebody's machine."""
    return [f"names the path {match[0]}" for match in _HOMES.finditer(text)]


def lock_faults(text: str) -> list[str]:
    """Check that a lock file holds pins with hashes and nothing else."""
    faults: list[str] = []
    pin, hashes = None, 0
    for number, line in enumerate([*text.splitlines(), "end==0 \\"], start=1):
        if _HASH.fullmatch(line):
            hashes += 1
        elif _PIN.fullmatch(line):
            if pin and not hashes:
                faults.append(f"{pin} has no hash")
            pin, hashes = line.split()[0], 0
        elif not line.lstrip().startswith("#"):
            faults.append(f"line {number} is neither a pin nor a hash: {line.strip()}")
        if "://" in line:
            faults.append(f"line {number} names an address")
    return faults


def makefile_faults(text: str) -> list[str]:
    """Check that each target says what it does and is declared phony."""
    phony = {name for line in re.findall(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE) for name in line.split()}
    faults = []
    for match in _TARGET.finditer(text):
        for name in match[1].split():
            if "## " not in match[2]:
                faults.append(f"{name} has no help text")
            if name not in phony:
                faults.append(f"{name} is not phony")
    return faults


def image_faults(image: str) -> list[str]:
    """Check that an image is pinned by a tag that names a version."""
    match = _IMAGE.fullmatch(image)
    if match is None:
        return [f"{image} has no tag"]
    return [] if any(char.isdigit() for char in match["tag"]) else [f"{image} is not pinned to a version"]


def _port_faults(ports: Iterable[object]) -> list[str]:
    return [f"publishes {port} beyond this machine" for port in ports if not str(port).startswith("127.0.0.1:")]


def _secret_faults(environment: Mapping[str, object]) -> list[str]:
    suspects = re.compile(r"PASSWORD|SECRET|TOKEN|PASSPHRASE|ACCESS_KEY")
    return [f"{name} holds a secret in clear" for name in environment if suspects.search(name) and "_FILE" not in name]


def _mount_faults(service: Mapping[str, object], volumes: Mapping[str, object]) -> list[str]:
    mounts = [mount for mount in service.get("volumes", ()) if isinstance(mount, str)]
    sources = [mount.split(":", 1)[0] for mount in mounts]
    return [f"uses the undeclared volume {name}" for name in sources if name[0] not in "./$~" and name not in volumes]


def _service_faults(service: Mapping[str, object], compose: Mapping[str, object]) -> list[str]:
    faults = image_faults(str(service.get("image", "")))
    faults += _port_faults(service.get("ports", ()))
    faults += _secret_faults(service.get("environment", {}))
    faults += _mount_faults(service, compose.get("volumes", {}))
    check = service.get("healthcheck")
    if not check:
        faults.append("has no health check")
    elif service.get("restart") and check.get("disable"):
        faults.append("stays up without a health check")
    if service.get("privileged"):
        faults.append("is privileged")
    for kind in ("secrets", "networks"):
        known = compose.get(kind, {})
        faults += [f"uses {name}, which {kind} lacks" for name in service.get(kind, ()) if name not in known]
    for name, wanted in service.get("depends_on", {}).items():
        other = compose["services"].get(name)
        if other is None:
            faults.append(f"depends on {name}, which is not there")
        elif wanted.get("condition") == "service_healthy" and other.get("healthcheck", {}).get("disable"):
            faults.append(f"waits for the health of {name}, which is not checked")
    return faults


def compose_faults(compose: Mapping[str, object]) -> list[str]:
    """Check a compose file's structure: pinned images, loopback ports, health checks, secrets by file, known names."""
    faults = [
        f"{name} {fault}"
        for name, service in compose["services"].items()
        for fault in _service_faults(service, compose)
    ]
    faults += [f"the secret {name} is not a file" for name, how in compose["secrets"].items() if set(how) != {"file"}]
    return faults


def adr_faults(text: str) -> list[str]:
    """Check that a decision record has status and date, and its four headings, in order, with something below each."""
    if not _ADR_STATUS.match(text):
        return ["has no line with its status and date under the title"]
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    headings = tuple(heading.strip() for heading in sections[1::2])
    if headings != ADR_HEADINGS:
        return [f"has the headings {headings}, not {ADR_HEADINGS}"]
    return [
        f"says nothing under {name}" for name, body in zip(headings, sections[2::2], strict=True) if not body.strip()
    ]


def changelog_faults(text: str) -> list[str]:
    """Check the form of Keep a Changelog 1.1.0: releases with dates, newest first, and its six kinds of change."""
    faults = []
    if not text.startswith("# Changelog\n"):
        faults.append("does not start with its title")
    releases = list(_RELEASE.finditer(text))
    if not releases or releases[0]["name"] != "Unreleased" or releases[0]["rest"]:
        faults.append("does not start with an Unreleased section")
    for match in releases[1:]:
        if not re.fullmatch(r" - \d{4}-\d{2}-\d{2}(?: \[YANKED\])?", match["rest"]):
            faults.append(f"{match['name']} has no date")
        if not re.fullmatch(r"\d+\.\d+\.\d+(?:[.-]?[a-z]+\d*)?", match["name"]):
            faults.append(f"{match['name']} is no version")
    dates = [match["rest"] for match in releases[1:]]
    if dates != sorted(dates, reverse=True):
        faults.append("is not newest first")
    kinds = re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
    faults += [f"{kind} is no kind of change" for kind in kinds if kind not in _CHANGES]
    return faults


def link_faults(name: str, text: str) -> list[str]:
    """Find links of a Markdown file that lead to no file."""
    folder = PurePosixPath(name).parent
    return [
        f"links to {target}, which is not there"
        for target in _LINK.findall(text)
        if not (ROOT / folder / target).exists()
    ]
