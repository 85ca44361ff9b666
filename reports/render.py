"""From a pack's summary to HTML, and to a PDF made by another process.

`render_html` is a function of the summary. `render_pdf` gives its HTML and the attachments to a worker
(`python -m reports.worker`) and takes the PDF back: rendering keeps its memory, can be made to run away by what it
renders, and reads process-wide settings, so it happens where it can be bounded and thrown away. WeasyPrint is never
imported here.

Same summary and attachments, same bytes, as long as WeasyPrint, Pango, HarfBuzz and the report's fonts are the same:
the worker's environment holds nothing of the caller's but where shared libraries lie, and its clock is that of the
checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import jinja2

import reports
from evidence.summary import BundleLine, ControlSheet, PackSummary
from ledger.errors import EvidenceError
from reports import wording
from reports.drawing import elide
from reports.emblems import MARKS
from reports.job import Attachment, RenderJob, encode_job
from reports.listing import stopped_by
from reports.settings import DEFAULT_CAPS, DEFAULT_LIMITS, ListCaps, RenderLimits
from reports.view import ReportView, make_view

__all__ = ["render_html", "render_pdf"]

_LIBRARY_VARIABLES: Final = ("LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
"""All that a worker inherits: where the shared libraries of Pango lie."""

_FONTCONFIG: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><cachedir>cache</cachedir></fontconfig>
"""
"""A font configuration without a folder: the worker sees no font of the machine."""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        elide=elide,
        digest_digits=wording.DIGEST_DIGITS,
        evidence_classes=wording.EVIDENCE_CLASSES,
        glossary=wording.GLOSSARY,
        marks=MARKS,
        number=wording.number,
        percent=wording.percent,
        quantity=wording.quantity,
        share=wording.share,
        short=wording.short,
        stopped_by=stopped_by,
        target=wording.target,
    )
    return environment


def _evidence(control: ControlSheet) -> str:
    """Return the evidence classes of a control, each with its name if it has one."""
    classes = (f"{name} {wording.EVIDENCE_CLASSES.get(name, '')}".strip() for name in control.evidence)
    return ", ".join(classes) or "none named"


def _file_names(bundle: BundleLine) -> list[str]:
    """Return the names of a bundle's files within its folder of the pack."""
    return [path.removeprefix(f"policies/{bundle.revision}/") for path in bundle.files]


def _created(summary: PackSummary) -> datetime:
    try:
        return datetime.fromtimestamp(summary.checkpoint_ms // 1000, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise EvidenceError("the time of the checkpoint lies outside the calendar") from error


def render_html(summary: PackSummary, *, caps: ListCaps = DEFAULT_CAPS) -> str:
    """Return the report as one HTML document.

    Its style sheets and fonts are named by ``asset:`` addresses, which only the worker understands.

    Args:
        summary: What the pack says; its strings may be hostile.
        caps: Longest lists.

    Raises:
        EvidenceError: The summary contradicts itself or cannot be printed.
    """
    view = make_view(summary, caps)
    return _environment().get_template("report.html").render(_context(view))


def _context(view: ReportView) -> dict[str, object]:
    numbers = {section.id: str(section.number) for section in view.sections}
    return {
        "anchor": lambda control: view.anchors[control.framework, control.control_id],
        "caps": view.caps,
        "created": _created(view.summary).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "evidence": _evidence,
        "leaves": lambda leaves: wording.ranges([(leaf, leaf) for leaf in leaves], view.caps.ranges),
        "file_names": lambda bundle: wording.names(_file_names(bundle), view.caps.names),
        "names": lambda values: wording.names(values, view.caps.names),
        "ranges": lambda pairs: wording.ranges(pairs, view.caps.ranges),
        "s": view.summary,
        "section_of": numbers.__getitem__,
        "times": view.times,
        "view": view,
    }


def render_pdf(
    summary: PackSummary,
    attachments: Mapping[str, bytes],
    *,
    caps: ListCaps = DEFAULT_CAPS,
    limits: RenderLimits = DEFAULT_LIMITS,
) -> bytes:
    """Return the report as a tagged PDF (PDF/A-3a with the PDF/UA-1 identifier) with attached files.

    Args:
        summary: What the pack says; its strings may be hostile.
        attachments: Path in the pack to bytes, attached in the order of their names; at least the content manifest and
            the end checkpoint belong here.
        caps: Longest lists.
        limits: What the worker may use.

    Raises:
        EvidenceError: The summary cannot be printed, an attachment's name is unusable, or the worker failed or was
            killed at a limit. The message is one line and holds no value of the summary.
    """
    created = _created(summary)
    if created.timestamp() < 0:
        raise EvidenceError("the time of the checkpoint lies before 1970")
    job = RenderJob(
        html=render_html(summary, caps=caps),
        created_seconds=int(created.timestamp()),
        identifier=summary.pack_id,
        attachments=tuple(Attachment(path=path, data=attachments[path]) for path in sorted(attachments)),
    )
    data = encode_job(job)
    if len(data) > limits.input_bytes:
        raise EvidenceError(f"the report and its attachments are larger than {limits.input_bytes} bytes")
    return _run_worker(data, job.created_seconds, limits)


def _worker_environment(folder: Path, created_seconds: int) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _LIBRARY_VARIABLES if name in os.environ}
    return inherited | {
        "FONTCONFIG_FILE": str(folder / "fonts.conf"),
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        # Where this package lies, for one that runs from its source tree without being installed.
        "PYTHONPATH": str(Path(reports.__file__).parent.parent),
        "SOURCE_DATE_EPOCH": str(created_seconds),
        "TMPDIR": str(folder),
        "TZ": "UTC",
    }


def _run_worker(job: bytes, created_seconds: int, limits: RenderLimits) -> bytes:
    # A killed worker leaves its temporary files here, and they go with the folder.
    with tempfile.TemporaryDirectory(prefix="tallystick-report-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "fonts.conf").write_text(_FONTCONFIG, encoding="ascii")
        command = [sys.executable, "-P", "-s", "-m", "reports.worker", str(limits.address_space_bytes)]
        try:
            finished = subprocess.run(  # noqa: S603 - our own module, no shell, fixed arguments
                command,
                input=job,
                capture_output=True,
                check=False,
                cwd=folder,
                env=_worker_environment(folder, created_seconds),
                timeout=limits.wall_clock_seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise EvidenceError(f"the report was not rendered within {limits.wall_clock_seconds:g} seconds") from error
        except OSError as error:
            raise EvidenceError("the process that renders reports cannot be started") from error
    if finished.returncode != 0:
        raise EvidenceError(_failure(finished, limits))
    if len(finished.stdout) > limits.output_bytes:
        raise EvidenceError(f"the PDF is larger than {limits.output_bytes} bytes")
    return finished.stdout


def _failure(finished: subprocess.CompletedProcess[bytes], limits: RenderLimits) -> str:
    """Return in one line why the worker failed; a crash is most often the address space that ran out."""
    if finished.returncode < 0:
        name = signal.Signals(-finished.returncode).name
        return (
            f"the process that renders reports died of {name}; "
            f"its address space is limited to {limits.address_space_bytes} bytes"
        )
    lines = finished.stderr.decode("utf-8", "replace").splitlines()
    reason = next((line for line in reversed(lines) if line.strip()), f"exit status {finished.returncode}")
    return f"the report could not be rendered: {reason[:300]}"
