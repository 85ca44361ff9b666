"""What a verification has established so far, and its report.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from evidence.standalone.faults import Fault, MalformedError, demand
from evidence.standalone.notes import Policy, Signed
from evidence.standalone.records import Held
from evidence.standalone.texts import parse_canonical
from evidence.standalone.trees import Tree
from evidence.standalone.walk import Walk

__all__ = [
    "CONSISTENCY",
    "CONTENT_MANIFEST",
    "CUSTODY",
    "END",
    "ENVELOPE",
    "MANIFEST",
    "README",
    "REPLAYS",
    "REPORT_PDF",
    "SCOPE",
    "START",
    "START_RANGE",
    "TRUST_POLICY",
    "Found",
    "Report",
    "has_members",
]

END, START, START_RANGE = "checkpoints/end.txt", "checkpoints/start.txt", "population/start-range.json"
CONSISTENCY, CUSTODY, README = "consistency.json", "custody.json", "README.txt"
CONTENT_MANIFEST, ENVELOPE, MANIFEST = "content-manifest.json", "manifest.dsse.json", "manifest.json"
REPLAYS, REPORT_PDF, SCOPE, TRUST_POLICY = "reperformance.json", "pack.pdf", "scope.json", "trust.policy"

_MAX_FILE = 256 << 20
_VERDICTS = {
    0: "PROVEN",
    1: "FAILED: a proof or digest does not hold",
    2: "MALFORMED",
    3: "TRUST NOT MET",
    4: "COULD NOT BE CHECKED",
}


class Report:
    """What was checked, what not, and what failed."""

    def __init__(self) -> None:
        """Begin."""
        self.checked: list[tuple[str, str]] = []
        self.not_checked: list[str] = []
        self.failures: list[tuple[str, str, str, int]] = []
        self.notes: list[str] = []
        self.self_asserted = False
        self.simulated = False

    def hold(self, check: str, told: str) -> None:
        """Note a check that held."""
        self.checked.append((check, told))

    def fail(self, check: str, file: str, fault: Fault) -> None:
        """Note a check that did not."""
        self.failures.append((check, file, str(fault), fault.status))

    @contextmanager
    def step(self, check: str, file: str) -> Iterator[None]:
        """Turn what a check raises into a failure that names the file."""
        try:
            yield
        except Fault as fault:
            self.fail(check, file, fault)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError):
            # Whatever is not shaped as it must be shows in one of these, somewhere.
            self.fail(check, file, MalformedError("it has not the shape that it must have"))

    @property
    def status(self) -> int:
        """The exit status: the worst of all, in the order 1, 2, 3, 4."""
        found = {status for *_, status in self.failures}
        worst = next((status for status in (1, 2) if status in found), 0)
        if not worst and (self.self_asserted or 3 in found):  # noqa: PLR2004  # exit statuses
            return 3
        return worst or (4 if 4 in found else 0)  # noqa: PLR2004

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        told = _VERDICTS[self.status]
        if self.status == 3 and self.self_asserted and not any(one[3] == 3 for one in self.failures):  # noqa: PLR2004
            told = "SELF-ASSERTED: it agrees with itself; no trust policy from outside was given"
        return told + (", and SIMULATED: evidence of nothing real" if self.simulated else "")


def has_members(value: Any, members: Mapping[str, type]) -> bool:  # noqa: ANN401  # JSON of any shape
    """Whether a value is an object of exactly these members, each of its kind; integers are not negative."""
    return (
        isinstance(value, dict)
        and value.keys() == members.keys()
        and all(type(value[name]) is kind for name, kind in members.items())
        and all(value[name] >= 0 for name, kind in members.items() if kind is int)
    )


class Found:
    """What a verification has established so far; a part that could not be established is None.

    Attributes:
        files: The pack's files.
        report: Where checks are noted.
        policy: Whose signatures count.
        scope: What the pack says it is about.
        end: The end checkpoint, verified.
        earlier: The start checkpoint, verified.
        known: The checkpoint from elsewhere, verified.
        predecessor: The same, where it is of another log.
        start: The tree before the range, and the entries from there that came along.
        walk: The walk over the entries, whose root is the signed one.
        pack_keys: Keys that signed the pack.
        held: Name and engine of the bundles whose digests hold, by revision.
        bundle_files: Their files.
    """

    def __init__(self, files: Mapping[str, memoryview], report: Report) -> None:
        """Begin with a container that holds."""
        self.files = files
        self.report = report
        self.policy: Policy | None = None
        self.scope: dict[str, Any] | None = None
        self.end: Signed | None = None
        self.earlier: Signed | None = None
        self.known: Signed | None = None
        self.predecessor: Signed | None = None
        self.start: tuple[Tree, list[tuple[int, bytes]]] | None = None
        self.walk: Walk | None = None
        self.pack_keys: list[Held] | None = None
        self.held: dict[str, tuple[str, str]] = {}
        self.bundle_files: dict[str, list[str]] = {}

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        demand(path in self.files, "the pack has no such file")
        demand(len(self.files[path]) <= _MAX_FILE, "the file is too long to be read whole")
        return bytes(self.files[path])

    def json(self, path: str) -> Any:  # noqa: ANN401  # JSON of any shape
        """Return what a canonical JSON file says."""
        return parse_canonical(self.read(path))

    def skip(self, what: str, because: str) -> None:
        """Note what was not looked at, and why."""
        self.report.not_checked.append(f"{what}: {because}")
