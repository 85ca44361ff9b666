"""What goes from the caller to the worker: one MessagePack value on standard input.

Pure.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ledger.errors import EvidenceError

__all__ = ["Attachment", "RenderJob", "attachment_name", "decode_job", "encode_job"]

_PATH: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class Attachment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is attached to the PDF.

    Attributes:
        path: Its path in the pack.
        data: Its bytes.
    """

    path: str
    data: bytes


class RenderJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a worker needs.

    Attributes:
        html: The document.
        created_seconds: POSIX seconds: time of the document and of all in it.
        identifier: Lasting identifier of the PDF.
        attachments: Files to attach.
    """

    html: str
    created_seconds: int
    identifier: str
    attachments: tuple[Attachment, ...]


def attachment_name(path: str) -> str:
    """Return the name under which a file of the pack is attached: readers take a slash for a folder, so it has none.

    Raises:
        EvidenceError: The path is not one of a pack.
    """
    if not _PATH.fullmatch(path):
        raise EvidenceError("an attachment of the report has an unusable name")
    return path.replace("/", "_")


def encode_job(job: RenderJob) -> bytes:
    """Return a job as bytes.

    Raises:
        EvidenceError: A name of an attachment is unusable, or two would be attached under one.
    """
    names = [attachment_name(attachment.path) for attachment in job.attachments]
    if len(set(names)) != len(names):
        raise EvidenceError("two attachments of the report would have one name")
    return msgspec.msgpack.encode(job)


def decode_job(data: bytes) -> RenderJob:
    """Return the job that `encode_job` wrote.

    Raises:
        EvidenceError: The bytes are no job.
    """
    try:
        return msgspec.msgpack.decode(data, type=RenderJob)
    except msgspec.DecodeError as error:
        raise EvidenceError("the rendering job is malformed") from error
