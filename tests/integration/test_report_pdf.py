"""The PDF itself, made by the real worker and read back with pypdf."""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pypdf
import pytest

from ledger.errors import EvidenceError
from reports import render
from reports.job import RenderJob, encode_job
from reports.render import render_pdf
from reports.settings import DEFAULT_LIMITS, RenderLimits
from tests.support import summaries

ATTACHMENTS = {"content-manifest.json": b'{"files":[]}', "checkpoints/end.txt": b"log.acme.example/acme\n621\n\x00\xff"}
STAMP = "SIMULATED: made with demonstration keys, clocks or records. Not evidence of real events."
NOT_OURS = "the report asked for an address that is not one of its own files"
NO_PICTURE = "WeasyPrint warned 1 times, first: Failed to render SVG image"
PAGE = "<html lang=en><head><title>t</title></head><body>{}</body></html>"
"""A page without a letter: it needs no font, which saves the worker most of its time."""


def _read(pdf: bytes) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(pdf))


@cache
def _texts(pdf: bytes) -> tuple[str, ...]:
    return tuple(" ".join(page.extract_text().split()) for page in _read(pdf).pages)


def _run(html: str, limits: RenderLimits = DEFAULT_LIMITS) -> bytes:
    job = encode_job(RenderJob(html=html, created_seconds=1, identifier="id", attachments=()))
    return render._run_worker(job, 1, limits)


@pytest.fixture(scope="module")
def demo() -> bytes:
    return render_pdf(summaries.demo(), ATTACHMENTS)


@pytest.fixture(scope="module")
def tiny() -> bytes:
    return render_pdf(summaries.tiny(), ATTACHMENTS)


# --- what a reader sees --------------------------------------------------------------------------------------------


def test_every_denied_call_and_control_can_be_found_in_the_text(demo: bytes) -> None:
    summary = summaries.demo()
    text = " ".join(_texts(demo))
    assert all(call.proof in text for call in summary.denied)
    assert all(control.title in text for sheet in summary.frameworks for control in sheet.controls)
    assert summary.root in text


def test_every_page_of_a_simulated_pack_has_the_stamp(demo: bytes) -> None:
    texts = _texts(demo)
    assert len(texts) > 20
    assert [number for number, text in enumerate(texts, 1) if STAMP not in text] == []


def test_no_page_of_a_real_pack_has_a_stamp(tiny: bytes) -> None:
    assert "SIMULATED" not in " ".join(_texts(tiny))


def test_landscape_pages_of_a_listing_have_the_stamp_and_their_number_too() -> None:
    pdf = render_pdf(summaries.many_denied(130), {})
    pages = _read(pdf).pages
    landscape = [page for page in pages if page.mediabox.width > page.mediabox.height]
    assert len(landscape) == 4
    assert all(STAMP in " ".join(page.extract_text().split()) for page in pages)
    assert sum(page.extract_text().count(".tlog-proof") for page in landscape) == 130


def test_every_page_but_the_cover_has_its_number_the_pack_and_the_period(demo: bytes) -> None:
    texts = _texts(demo)
    for number, text in enumerate(texts[1:], 2):
        assert f"{number} of {len(texts)}" in text
        assert f"Pack {summaries.demo().pack_id}" in text
        assert "17 November 2025, 01:00 to 24 November 2025, 01:00" in text


def test_pages_are_a4(demo: bytes) -> None:
    sizes = {tuple(sorted(round(float(side)) for side in page.mediabox[2:])) for page in _read(demo).pages}
    assert sizes == {(595, 842)}


def test_contents_lead_to_every_section(demo: bytes) -> None:
    reader = _read(demo)
    places = {title: reader.get_destination_page_number(place) for title, place in _bookmarks(reader)}
    sections = [title for title in places if re.match(r"\d+ ", title)]
    assert len(sections) == 13
    for title in sections:
        number, words = title.split(" ", 1)
        assert f"{number} {words}" in _texts(demo)[places[title]]
    assert len(reader.pages[1]["/Annots"]) == 2 * 13


def _bookmarks(reader: pypdf.PdfReader) -> Iterator[tuple[str, pypdf.generic.Destination]]:
    pending = list(reader.outline)
    while pending:
        item = pending.pop(0)
        if isinstance(item, list):
            pending = [*item, *pending]
        else:
            yield str(item.title), item


# --- what the file is ----------------------------------------------------------------------------------------------


def test_title_language_time_and_identifier_are_set(demo: bytes) -> None:
    summary, reader = summaries.demo(), _read(demo)
    assert reader.metadata is not None
    assert reader.metadata.title == f"{summary.title}: Acme Group, 17 November 2025, 01:00 to 24 November 2025, 01:00"
    assert reader.metadata["/CreationDate"] == reader.metadata["/ModDate"] == "D:20251124000135Z"
    assert reader.root_object["/Lang"] == "en"
    assert reader.root_object["/ViewerPreferences"]["/DisplayDocTitle"]
    assert str(reader.trailer["/ID"][0]) == summary.pack_id


def test_the_file_is_tagged_and_says_that_it_is_archivable_and_accessible(demo: bytes) -> None:
    root = _read(demo).root_object
    assert root["/MarkInfo"]["/Marked"]
    assert root["/StructTreeRoot"]["/K"]
    assert root["/OutputIntents"]
    xmp = root["/Metadata"].get_object().get_data().decode()
    assert 'pdfaid:part="3"' in xmp
    assert 'pdfaid:conformance="A"' in xmp
    assert 'pdfuaid:part="1"' in xmp
    assert "<pdfaSchema:namespaceURI>http://www.aiim.org/pdfua/ns/id/</pdfaSchema:namespaceURI>" in xmp


def test_every_picture_has_an_alternative_text(demo: bytes) -> None:
    reader = _read(demo)
    figures = [
        element
        for number in range(1, int(reader.trailer["/Size"]))
        if isinstance(element := reader.get_object(pypdf.generic.IndirectObject(number, 0, reader)), dict)
        if element.get("/S") == "/Figure"
    ]
    assert len(figures) == 6  # the tally, three charts, two strips
    assert all(len(figure["/Alt"]) > 40 for figure in figures)


def test_attachments_are_there_byte_for_byte_and_listed_once(demo: bytes) -> None:
    reader = _read(demo)
    assert {name: list(data) for name, data in reader.attachments.items()} == {
        "content-manifest.json": [ATTACHMENTS["content-manifest.json"]],
        "checkpoints_end.txt": [ATTACHMENTS["checkpoints/end.txt"]],
    }
    associated = [file.get_object() for file in reader.root_object["/AF"]]
    assert [(str(file["/UF"]), file["/AFRelationship"], str(file["/Desc"])) for file in associated] == [
        ("checkpoints_end.txt", "/Supplement", "checkpoints/end.txt of the evidence pack"),
        ("content-manifest.json", "/Data", "content-manifest.json of the evidence pack"),
    ]


def test_only_fonts_of_the_report_are_used_and_they_are_embedded() -> None:
    reader = _read(render_pdf(summaries.hostile(), {}))
    fonts = [font.get_object() for font in reader.pages[0]["/Resources"]["/Font"].values()]  # all pages share them
    names = {str(font["/BaseFont"]).partition("+")[2] for font in fonts}
    assert names
    assert all(name.startswith("IBM-Plex-") for name in names)
    for font in fonts:
        descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"]
        assert {"/FontFile2", "/FontFile3"} & set(descriptor)


# --- the same bytes ------------------------------------------------------------------------------------------------


def test_the_same_summary_gives_the_same_bytes_in_any_process_and_environment(tiny: bytes) -> None:
    program = (
        "import hashlib; from tests.support import summaries; from reports.render import render_pdf;"
        f"print(hashlib.sha256(render_pdf(summaries.tiny(), {ATTACHMENTS!r})).hexdigest())"
    )
    digests = {hashlib.sha256(tiny).hexdigest()}
    for changes in (
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LANG": "C", "SOURCE_DATE_EPOCH": "1"},
        {"PYTHONHASHSEED": "99", "TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "FONTCONFIG_FILE": "nowhere"},
    ):
        environment = os.environ | {"PYTHONPATH": "."} | changes
        finished = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
        )
        digests.add(finished.stdout.strip())
    assert len(digests) == 1


def test_another_attachment_or_summary_gives_other_bytes(tiny: bytes) -> None:
    assert render_pdf(summaries.tiny(), ATTACHMENTS | {"x.json": b"{}"}) != tiny
    assert render_pdf(replace(summaries.tiny(), environment="other"), ATTACHMENTS) != tiny


# --- a hostile document --------------------------------------------------------------------------------------------


@contextmanager
def _listener() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a port of this machine and note who connects."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                heard.append(b"connected")
                connection.close()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_an_address_in_a_string_of_the_summary_is_printed_and_not_fetched() -> None:
    with _listener() as (port, heard):
        address = f"http://127.0.0.1:{port}/track.png"
        name = f"<img src={address}><style>@import url({address})</style>"
        summary = summaries.tiny()
        call = replace(summary.denied[0], tool=name, agent=f"<link rel=attachment href={address}>")
        pdf = render_pdf(replace(summary, denied=(call,), title=name), {})
        assert heard == []
    assert f"127.0.0.1:{port}/track.png" in "".join("".join(_texts(pdf)).split())


@pytest.mark.parametrize(
    "element",
    [
        '<img src="{}" alt="x">',
        '<link rel="stylesheet" href="{}">',
        '<link rel="attachment" href="{}">',
        '<a rel="attachment" href="{}"></a>',
        '<object data="{}"></object>',
        '<embed src="{}">',
        '<style>body {{ background: url("{}") }}</style>',
        '<style>@import url("{}");</style>',
        '<style>@font-face {{ font-family: x; src: url("{}") }}</style>',
        '<svg width="9" height="9"><title>x</title><image href="{}" width="9" height="9"/></svg>',
    ],
)
def test_an_element_that_asks_for_an_address_ends_the_rendering_without_a_connection(element: str) -> None:
    with _listener() as (port, heard):
        with pytest.raises(EvidenceError, match=f"could not be rendered: ({NOT_OURS}|{NO_PICTURE})"):
            _run(PAGE.format(element.format(f"http://127.0.0.1:{port}/x.svg")))
        assert heard == []


def test_a_part_of_another_drawing_is_not_fetched() -> None:
    with _listener() as (port, heard):
        _run(PAGE.format(f'<svg width="9" height="9"><title>x</title><use href="http://127.0.0.1:{port}/#x"/></svg>'))
        assert heard == []


@pytest.mark.parametrize(
    "address", ["file:///etc/hostname", "ftp://127.0.0.1/x", "asset:render.py", "asset:styles/../job.py", "other:x"]
)
def test_no_file_and_no_other_scheme_is_read(address: str) -> None:
    with pytest.raises(EvidenceError, match=NOT_OURS):
        _run(PAGE.format(f'<img src="{address}" alt="x">'))


def test_a_relative_address_leads_nowhere() -> None:
    with pytest.raises(EvidenceError, match="could not be rendered"):
        _run(PAGE.format('<img src="render.py" alt="x">'))


def test_the_worker_hears_no_network_even_from_its_own_code() -> None:
    program = (
        "from reports import worker; worker._limit(1 << 31); import socket; socket.create_connection(('127.0.0.1', 9))"
    )
    finished = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "PermissionError: a report is rendered without the network" in finished.stderr


def test_a_style_that_the_renderer_does_not_know_ends_the_rendering() -> None:
    with pytest.raises(EvidenceError, match="WeasyPrint warned 1 times"):
        _run(PAGE.format("<style>body { colour: red }</style>"))


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        pytest.param(RenderLimits(wall_clock_seconds=0.2), "not rendered within 0.2 seconds", id="time"),
        pytest.param(RenderLimits(address_space_bytes=96 << 20), "100663296 bytes", id="memory"),
        pytest.param(RenderLimits(address_space_bytes=24 << 20), "25165824 bytes", id="no room to start"),
        pytest.param(RenderLimits(input_bytes=1_000), "larger than 1000 bytes", id="input"),
        pytest.param(RenderLimits(output_bytes=1_000), "PDF is larger than 1000 bytes", id="output"),
    ],
)
def test_a_worker_at_its_limit_is_an_error_of_one_line_and_leaves_nothing_behind(
    limits: RenderLimits, reason: str, own_temporary_folder: Path
) -> None:
    with pytest.raises(EvidenceError, match=reason) as caught:
        render_pdf(summaries.tiny(), ATTACHMENTS, limits=limits)
    assert "\n" not in str(caught.value)
    assert list(own_temporary_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("MemoryError()", "its address space of 4294967296 bytes is used up"),
        ("ValueError('secret')", "an address of the report could not be read"),
        ("pdf.EvidenceError('the file is missing')", f"{NOT_OURS}: the file is missing"),
    ],
)
def test_what_goes_wrong_while_an_asset_is_fetched_is_called_by_its_name(raised: str, told: str) -> None:
    page = PAGE.format('<link rel=stylesheet href="asset:styles/text.css">')
    job = encode_job(RenderJob(html=page, created_seconds=1, identifier="id", attachments=()))
    program = (
        "import sys; from reports import pdf, worker\n"
        f"def fail(name): raise {raised}\n"
        "pdf.read_asset = fail\n"
        "sys.exit(worker.main([str(4 << 30)]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    finished = subprocess.run(command, input=job, check=False, capture_output=True)
    assert (finished.returncode, finished.stdout) == (1, b"")
    assert finished.stderr.decode() == f"{told}\n"


def test_a_worker_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "no-such-program")
    with pytest.raises(EvidenceError, match="cannot be started"):
        render_pdf(summaries.tiny(), {})


def test_a_job_that_is_none_is_an_error_of_the_worker() -> None:
    with pytest.raises(EvidenceError, match="could not be rendered: the rendering job is malformed"):
        render._run_worker(b"no job", 1, DEFAULT_LIMITS)


def test_the_worker_inherits_nothing_but_the_place_of_shared_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYSTICK_TOKEN", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "libraries")
    environment = render._worker_environment(tmp_path, 7)
    assert "secret" not in environment.values()
    assert environment["LD_LIBRARY_PATH"] == "libraries"
    assert set(environment) - {"LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"} == {
        *("FONTCONFIG_FILE", "HOME", "LC_ALL", "PYTHONHASHSEED", "PYTHONPATH", "SOURCE_DATE_EPOCH", "TMPDIR", "TZ"),
    }


def test_the_caller_never_loads_the_renderer() -> None:
    program = (
        "import sys; from tests.support import summaries; from reports.render import render_pdf;"
        "assert render_pdf(summaries.tiny(), {})[:5] == b'%PDF-';"
        "sys.exit('weasyprint' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": "."})


def test_a_checkpoint_before_1970_is_refused() -> None:
    with pytest.raises(EvidenceError, match="before 1970"):
        render_pdf(replace(summaries.tiny(), checkpoint_ms=-1), {})
