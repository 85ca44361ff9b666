"""The WeasyPrint adapter: HTML and attachments in, the bytes of a PDF out. Only `reports.worker` imports it.

The file is PDF/A-3a (ISO 19005-3: archivable, tagged, with attachments) and carries the identifier of PDF/UA-1 (ISO
14289-1: accessible). WeasyPrint writes one identifier, so the second is added to its metadata, with the extension
schema that PDF/A demands for a schema that it does not know.

WeasyPrint goes on when a style is unknown or a font is missing, and says so in its log. A report that does not look as
it was designed is no report: whatever it warns of is an error here.
"""

# mypy: allow-untyped-calls
# WeasyPrint has no annotations.

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, fromstring, register_namespace, tostring

import weasyprint
from weasyprint.pdf.metadata import DocumentMetadata
from weasyprint.text.fonts import FontConfiguration
from weasyprint.urls import FatalURLFetchingError, URLFetcher, URLFetcherResponse

from ledger.errors import EvidenceError
from reports.assets import ASSET_SCHEME, read_asset
from reports.job import RenderJob, attachment_name

__all__ = ["make_pdf"]

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PDFUA: Final = "http://www.aiim.org/pdfua/ns/id/"
_EXTENSION: Final = "http://www.aiim.org/pdfa/ns/extension/"
_SCHEMA: Final = "http://www.aiim.org/pdfa/ns/schema#"
_PROPERTY: Final = "http://www.aiim.org/pdfa/ns/property#"

_NOT_OURS: Final = "the report asked for an address that is not one of its own files"
_RELATIONSHIPS: Final = {".json": "Data", ".gz": "Data"}
"""ISO 32000-2, 7.11.3: files that the report was made from are its data, all others supplement it."""


class _RefusedError(FatalURLFetchingError):
    """Our own refusal: its message quotes nothing of the document."""


class _PackagedAssets(URLFetcher):
    """Serves the files of this package and ``data:`` addresses; anything else ends the rendering.

    INVARIANT: nothing that stands in a report makes the renderer read a file or open a connection.
    """

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> URLFetcherResponse:
        """Return an asset.

        Raises:
            _RefusedError: The address is of another kind, or there is no such asset.
            MemoryError: There was no room for it.
        """
        scheme, _, rest = url.partition(":")
        if scheme == "data":
            response: URLFetcherResponse = super().fetch(url, headers)
            return response
        if scheme == ASSET_SCHEME:
            try:
                asset = read_asset(rest)
            except EvidenceError as error:
                raise _RefusedError(f"{_NOT_OURS}: {error}") from error
            return URLFetcherResponse(url, asset.data, {"Content-Type": asset.media_type})
        raise _RefusedError(_NOT_OURS)


class _Warnings(logging.Handler):
    """Collects what WeasyPrint warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the form of the first message: its arguments may quote the document."""
        self.count += 1
        self.first = self.first or str(record.msg)


class _Metadata(DocumentMetadata):
    """WeasyPrint's metadata with the identifier of PDF/UA-1 beside that of PDF/A."""

    def generate_rdf_metadata(self, variant: str, version: int, conformance: str | None) -> bytes:
        """Return the RDF of WeasyPrint with two descriptions more."""
        rdf = fromstring(super().generate_rdf_metadata(variant, version, conformance))  # noqa: S314 - WeasyPrint's own
        for prefix, uri in (("pdfaExtension", _EXTENSION), ("pdfaSchema", _SCHEMA), ("pdfaProperty", _PROPERTY)):
            register_namespace(prefix, uri)
        SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": "", f"{{{_PDFUA}}}part": "1"})
        rdf.append(_extension_schema())
        result: bytes = tostring(rdf, encoding="utf-8")
        return result


def _extension_schema() -> Element:
    """Describe the PDF/UA identification schema, as ISO 19005-3, 6.6.2.3.3 demands."""
    description = Element(f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""})
    resource = {f"{{{_RDF}}}parseType": "Resource"}
    schemas = SubElement(SubElement(description, f"{{{_EXTENSION}}}schemas"), f"{{{_RDF}}}Bag")
    schema = SubElement(schemas, f"{{{_RDF}}}li", resource)
    for name, text in (
        ("schema", "PDF/UA Universal Accessibility Schema"),
        ("namespaceURI", _PDFUA),
        ("prefix", "pdfuaid"),
    ):
        SubElement(schema, f"{{{_SCHEMA}}}{name}").text = text
    properties = SubElement(SubElement(schema, f"{{{_SCHEMA}}}property"), f"{{{_RDF}}}Seq")
    part = SubElement(properties, f"{{{_RDF}}}li", resource)
    for name, text in (
        ("name", "part"),
        ("valueType", "Integer"),
        ("category", "internal"),
        ("description", "Part of ISO 14289 to which the document conforms"),
    ):
        SubElement(part, f"{{{_PROPERTY}}}{name}").text = text
    return description


def _attachments(job: RenderJob, created: datetime) -> list[weasyprint.Attachment]:
    attachments = []
    for file in job.attachments:
        name = attachment_name(file.path)
        suffix = name[name.rfind(".") :]
        attachments.append(
            weasyprint.Attachment(
                file_obj=BytesIO(file.data),
                name=name,
                description=f"{file.path} of the evidence pack",
                created=created,
                modified=created,
                relationship=_RELATIONSHIPS.get(suffix, "Supplement"),
            )
        )
    return attachments


def _finish(_document: weasyprint.Document, pdf: Any) -> None:  # noqa: ANN401 - pydyf has no types
    """List each attachment once among the associated files; WeasyPrint lists it twice."""
    files = pdf.catalog.get("AF")
    if files is not None:
        files[:] = dict.fromkeys(files)


def make_pdf(job: RenderJob) -> bytes:
    """Return the PDF of a job.

    Raises:
        EvidenceError: WeasyPrint warned of something, or the document asked for an address that is not ours.
    """
    created = datetime.fromtimestamp(job.created_seconds, UTC)
    heard = _Warnings()
    logger = logging.getLogger("weasyprint")
    logger.handlers = [heard]
    fetcher = _PackagedAssets(allowed_protocols=("data",), allow_redirects=False, fail_on_errors=True)
    try:
        document = weasyprint.HTML(string=job.html, base_url="asset:", url_fetcher=fetcher).render(
            font_config=FontConfiguration()
        )
        document.metadata = _Metadata(**vars(document.metadata))
        pdf: bytes = document.write_pdf(
            finisher=_finish,
            attachments=_attachments(job, created),
            pdf_identifier=job.identifier.encode(),
            pdf_variant="pdf/a-3a",
        )
    except _RefusedError as error:
        raise EvidenceError(str(error)) from error
    except FatalURLFetchingError as error:
        # WeasyPrint's word for whatever went wrong while something was fetched, the end of the memory among it.
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        raise EvidenceError("an address of the report could not be read") from error
    if heard.count:
        raise EvidenceError(f"WeasyPrint warned {heard.count} times, first: {heard.first}")
    return pdf
