"""The job between caller and worker holds what it was given, and no name that could hurt a reader of the PDF."""

from __future__ import annotations

import pytest

from ledger.errors import EvidenceError
from reports.job import Attachment, RenderJob, attachment_name, decode_job, encode_job


def _job(*paths: str) -> RenderJob:
    files = tuple(Attachment(path=path, data=b"\x00\xff") for path in paths)
    return RenderJob(html="<p>x</p>", created_seconds=5, identifier="id", attachments=files)


def test_a_job_comes_back_as_it_was() -> None:
    job = _job("content-manifest.json", "checkpoints/end.txt")
    assert decode_job(encode_job(job)) == job


def test_a_path_of_the_pack_becomes_a_name_without_folders() -> None:
    assert attachment_name("checkpoints/end.txt") == "checkpoints_end.txt"


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a/.b", "x\u202etxt", "a b", "a\n", "a\\b", "a/"]
)
def test_a_path_that_no_pack_holds_is_refused(path: str) -> None:
    with pytest.raises(EvidenceError, match="unusable name"):
        encode_job(_job(path))


def test_two_files_that_would_have_one_name_are_refused() -> None:
    with pytest.raises(EvidenceError, match="one name"):
        encode_job(_job("a/b.txt", "a_b.txt"))


@pytest.mark.parametrize("data", [b"", b"\x80", b"not a job", encode_job(_job())[:-1], encode_job(_job()) + b"\x00"])
def test_bytes_that_are_no_job_are_refused(data: bytes) -> None:
    with pytest.raises(EvidenceError, match="malformed"):
        decode_job(data)
