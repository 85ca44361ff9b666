"""The service over HTTP: posting records, fetching the bundle in force and what is stopped.

``POST /v1/decisions`` takes NDJSON, one submission a line, and answers 201 when all of them are durable::

    {"record":{…entry…},"openings":[{"field":"message","salt":"<base64>","payload":"<base64>"}]}

``GET /v1/bundles/active`` answers with the archive of the bundle in force and its revision as ``ETag``, 304 if it is
the one named in ``If-None-Match``, 404 if none is in force. With ``Prefer: wait=30`` the service holds the question
until another bundle is in force, and says ``Preference-Applied: wait`` if it does so. ``Tallystick-Canary`` names the
bundle that is evaluated beside it, if there is one; ``GET /v1/bundles/canary`` answers with that one's archive.

Every answer to an enforcer says the service's time, ``Tallystick-Time: 1763546400000``, POSIX milliseconds; what the
gateway's clock is ahead of it, is measured by the way (`enforcement.clock_offset`).

``GET /v1/restrictions?after=VERSION&digest=DIGEST&wait=20`` answers with the set of restrictions in force, or with 304
if it is the one named, which the service holds back for as long as there is no other. Asking is the acknowledgement.

``GET /v1/approvals/verdicts?after=VERSION&wait=20`` answers likewise with what people have said of the calls that this
gateway holds; it is asked only while there are any.

No redirect is followed, no cookie kept, no proxy taken from the environment: the enforcer's token goes to the
configured service and nowhere else.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

import aiohttp
import msgspec

from enforcement.batches import QueuedRecord
from enforcement.bounded import read_bounded
from enforcement.clock_offset import ClockOffset
from enforcement.modes import ApprovedMode
from enforcement.ports import (
    ActiveBundle,
    BundleAnswer,
    NewRestrictions,
    NewToolVerdicts,
    NewVerdicts,
    NoBundle,
    Posted,
    PostResult,
    Refused,
    RestrictionAnswer,
    SameRestrictions,
    SameToolVerdicts,
    SameVerdicts,
    ToolVerdictAnswer,
    Unavailable,
    UnchangedBundle,
    VerdictAnswer,
)
from enforcement.profiles.orders import BaselineOrder
from enforcement.tls_client import ClientContext
from enforcement.tls_files import Rotating
from ledger.approvals import MAX_VERDICTS_BYTES
from ledger.canonical import parse_json
from ledger.clock import Clock
from ledger.errors import MalformedError, UpstreamError
from ledger.notes import encode_base64
from ledger.restrictions import MAX_DOCUMENT_BYTES
from ledger.tool_verdicts import MAX_TOOL_DOCUMENT_BYTES
from policies.signatures import MAX_SIGNATURE_BYTES

__all__ = ["ServiceClient", "encode_submission"]

_MAX_ANSWER_BYTES: Final = 4 << 20
_MAX_ARCHIVE_BYTES: Final = 16 << 20
_REVISION: Final = re.compile(r"[0-9a-f]{64}")
_ETAG: Final = re.compile(r'"(?P<revision>[0-9a-f]{64})"')
# Only these say something about the records themselves. Anything else, 404 and 405 included, says that the way to the
# service is not as it should be: records are kept and posted again.
_NEVER: Final = frozenset({400, 413, 422})
_TIME: Final = re.compile(r"[0-9]{1,15}")
# C2SP tlog-tiles: what an index is kept in, in the spool as well; one beyond it could not be kept.
_MAX_LEAVES: Final = 1 << 63


class _Approved(msgspec.Struct, frozen=True):
    items: tuple[ApprovedMode, ...]


_APPROVED: Final = msgspec.json.Decoder(_Approved)


class _Orders(msgspec.Struct, frozen=True):
    items: tuple[BaselineOrder, ...]


_ORDERS: Final = msgspec.json.Decoder(_Orders)


def encode_submission(record: QueuedRecord) -> bytes:
    """Return one line of the request: the entry exactly as it is signed, with its openings."""
    openings = ",".join(
        f'{{"field":"{opening.field}","salt":"{encode_base64(opening.salt)}",'
        f'"payload":"{encode_base64(opening.payload)}"}}'
        for opening in record.openings
    )
    return b'{"record":%b,"openings":[%b]}\n' % (record.entry, openings.encode())


class ServiceClient:
    """All ports of the service; an asynchronous context, inside of which its connections live.

    Attributes:
        offset: Of the gateway's clock against the service's.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_seconds: float,
        clock: Clock | None = None,
        tls: Rotating[ClientContext] | None = None,
    ) -> None:
        """Name the service.

        Args:
            url: Base URL.
            token: The enforcer's token.
            timeout_seconds: For one request.
            clock: Is measured against the service's; None to measure nothing.
            tls: What TLS shows and asks for on the way; None for the standard library's defaults.
        """
        self._tls = tls
        self.offset = ClockOffset()
        self._clock = clock
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, headers=self._headers
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, records: Sequence[QueuedRecord]) -> PostResult:
        """Post records; see `enforcement.ports.LedgerClient`."""
        body = b"".join(map(encode_submission, records))
        try:
            status, headers, answer = await self._send(
                "POST", "/v1/decisions", {"Content-Type": "application/x-ndjson"}, body, _MAX_ANSWER_BYTES
            )
        except UpstreamError as error:
            return Unavailable(str(error))
        if status in (HTTPStatus.OK, HTTPStatus.CREATED):
            return _read_acknowledgements(answer, records)
        if status in _NEVER or status == HTTPStatus.CONFLICT:
            return Refused(status, conflict=status == HTTPStatus.CONFLICT)
        return Unavailable(f"http_{status}", _retry_after(headers))

    async def fetch(self, known_revision: str | None, *, wait_seconds: float = 0.0) -> BundleAnswer:
        """Ask for the bundle in force; see `enforcement.ports.BundleSource`."""
        condition = {} if known_revision is None else {"If-None-Match": f'"{known_revision}"'}
        if wait_seconds >= 1:
            condition["Prefer"] = f"wait={int(wait_seconds)}"  # RFC 7240 section 4.3: whole seconds
        try:
            status, headers, answer = await self._send(
                "GET", "/v1/bundles/active", condition, None, _MAX_ARCHIVE_BYTES, more_seconds=wait_seconds
            )
        except UpstreamError as error:
            return Unavailable(str(error))
        etag = _ETAG.fullmatch(headers.get("ETag", ""))
        held = headers.get("Preference-Applied") == "wait"
        said = headers.get("Tallystick-Canary", "")
        canary = said if _REVISION.fullmatch(said) else None
        if status == HTTPStatus.OK and etag is not None:
            return ActiveBundle(etag["revision"], answer, held, canary)
        if status == HTTPStatus.NOT_MODIFIED and known_revision is not None:
            return UnchangedBundle(held, canary)
        if status == HTTPStatus.NOT_FOUND:
            return NoBundle()
        return Unavailable(f"http_{status}", _retry_after(headers))

    async def canary(self) -> bytes | Unavailable:
        """Ask for the canary's archive; see `enforcement.ports.CanarySource`."""
        try:
            status, headers, answer = await self._send("GET", "/v1/bundles/canary", {}, None, _MAX_ARCHIVE_BYTES)
        except UpstreamError as error:
            return Unavailable(str(error))
        return answer if status == HTTPStatus.OK else Unavailable(f"http_{status}", _retry_after(headers))

    async def restrictions(self, version: int, digest: str, *, wait_seconds: float = 0.0) -> RestrictionAnswer:
        """Ask for the set of restrictions in force; see `enforcement.ports.RestrictionChannel`."""
        path = f"/v1/restrictions?after={version}&digest={digest}&wait={int(wait_seconds)}"
        try:
            status, headers, answer = await self._send(
                "GET", path, {}, None, MAX_DOCUMENT_BYTES, more_seconds=wait_seconds
            )
        except UpstreamError as error:
            return Unavailable(str(error))
        held = headers.get("Preference-Applied") == "wait"
        if status == HTTPStatus.OK:
            return NewRestrictions(answer, held)
        if status == HTTPStatus.NOT_MODIFIED:
            return SameRestrictions(held)
        return Unavailable(f"http_{status}", _retry_after(headers))

    async def tool_verdicts(self, digest: str) -> ToolVerdictAnswer:
        """Ask what people said of tools; see `enforcement.ports.ToolVerdictChannel`."""
        path = f"/v1/tools/verdicts?digest={digest}"
        try:
            status, headers, answer = await self._send("GET", path, {}, None, MAX_TOOL_DOCUMENT_BYTES)
        except UpstreamError as error:
            return Unavailable(str(error))
        if status == HTTPStatus.OK:
            return NewToolVerdicts(answer)
        if status == HTTPStatus.NOT_MODIFIED:
            return SameToolVerdicts()
        return Unavailable(f"http_{status}", _retry_after(headers))

    async def verdicts(self, version: int, *, wait_seconds: float = 0.0) -> VerdictAnswer:
        """Ask what people have said of held calls; see `enforcement.ports.ApprovalChannel`."""
        path = f"/v1/approvals/verdicts?after={version}&wait={int(wait_seconds)}"
        try:
            status, headers, answer = await self._send(
                "GET", path, {}, None, MAX_VERDICTS_BYTES, more_seconds=wait_seconds
            )
        except UpstreamError as error:
            return Unavailable(str(error))
        if status == HTTPStatus.OK:
            return NewVerdicts(answer)
        if status == HTTPStatus.NOT_MODIFIED:
            return SameVerdicts(headers.get("Preference-Applied") == "wait")
        return Unavailable(f"http_{status}", _retry_after(headers))

    async def signature(self, revision: str) -> bytes | Unavailable:
        """Ask for a bundle's signature; see `enforcement.ports.BundleSource`."""
        path = f"/v1/bundles/{revision}/signature"
        try:
            status, headers, answer = await self._send("GET", path, {}, None, MAX_SIGNATURE_BYTES)
        except UpstreamError as error:
            return Unavailable(str(error))
        return answer if status == HTTPStatus.OK else Unavailable(f"http_{status}", _retry_after(headers))

    def _measure(self, sent_ms: int, headers: Mapping[str, str]) -> None:
        told = headers.get("Tallystick-Time", "")
        if self._clock is not None and _TIME.fullmatch(told):
            self.offset.sample(sent_ms=sent_ms, service_ms=int(told), received_ms=self._clock.now_ms())

    async def log_file(self, log_id: str, path: str) -> bytes | Unavailable | None:
        """Ask for a file of the log; see `enforcement.receipts.LogSource`."""
        try:
            status, headers, answer = await self._send("GET", f"/logs/{log_id}/{path}", {}, None, _MAX_ANSWER_BYTES)
        except UpstreamError as error:
            return Unavailable(str(error))
        if status == HTTPStatus.NOT_FOUND:
            return None
        return answer if status == HTTPStatus.OK else Unavailable(f"http_{status}", _retry_after(headers))

    async def baseline_orders(self) -> Sequence[BaselineOrder] | Unavailable:
        """Ask what people ordered about baselines; see `enforcement.profiles.orders.BaselineOrders`."""
        try:
            status, headers, answer = await self._send("GET", "/v1/drift/orders", {}, None, _MAX_ANSWER_BYTES)
        except UpstreamError as error:
            return Unavailable(str(error))
        if status != HTTPStatus.OK:
            return Unavailable(f"http_{status}", _retry_after(headers))
        try:
            return _ORDERS.decode(answer).items
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Unavailable("unreadable_answer")

    async def approved_modes(self) -> Sequence[ApprovedMode] | Unavailable:
        """Ask what may be only observed from now on; see `enforcement.server_reload.ModeApprovals`."""
        try:
            status, headers, answer = await self._send("GET", "/v1/modes/approved", {}, None, _MAX_ANSWER_BYTES)
        except UpstreamError as error:
            return Unavailable(str(error))
        if status != HTTPStatus.OK:
            return Unavailable(f"http_{status}", _retry_after(headers))
        try:
            return _APPROVED.decode(answer).items
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Unavailable("unreadable_answer")

    async def ask(self, path: str, body: bytes) -> bytes | Unavailable:
        """Post a JSON document, and return the answer's if it is one (200)."""
        try:
            status, headers, answer = await self._send(
                "POST", path, {"Content-Type": "application/json"}, body, _MAX_ANSWER_BYTES
            )
        except UpstreamError as error:
            return Unavailable(str(error))
        return answer if status == HTTPStatus.OK else Unavailable(f"http_{status}", _retry_after(headers))

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        max_bytes: int,
        *,
        more_seconds: float = 0.0,
    ) -> tuple[int, Mapping[str, str], bytes]:
        assert self._session is not None  # the client is used inside its context
        sent_ms = 0 if self._clock is None else self._clock.now_ms()
        try:
            async with self._session.request(
                method,
                self._url + path,
                ssl=True if self._tls is None else self._tls.current,
                # Of a body that is a stream, a large one too is written piece by piece.
                data=None if body is None else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._seconds + more_seconds),
            ) as response:
                self._measure(sent_ms, response.headers)
                answer = await read_bounded(response.content, max_bytes) if response.ok else b""
                return response.status, response.headers, answer
        except MalformedError as error:
            raise UpstreamError("answer_too_large") from error
        except TimeoutError as error:
            raise UpstreamError("timeout") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError("unreachable") from error


def _read_acknowledgements(answer: bytes, records: Sequence[QueuedRecord]) -> Posted | Unavailable:
    """Believe an acknowledgement only if it names each record with an index, in order."""
    unreadable = Unavailable("unreadable_acknowledgement")
    try:
        value = parse_json(answer)
    except MalformedError:
        return unreadable
    results = value.get("results") if isinstance(value, dict) else None
    if not isinstance(results, list) or len(results) != len(records):
        return unreadable
    indexes: list[int] = []
    for result, record in zip(results, records, strict=True):
        index = result.get("leaf_index") if isinstance(result, dict) else None
        if not isinstance(result, dict) or result.get("record_id") != record.record_id:
            return unreadable
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < _MAX_LEAVES:
            return unreadable
        indexes.append(index)
    return Posted(tuple(indexes))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the pause that was asked for in seconds; a date is not understood and counts as none."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 8 else None  # noqa: PLR2004  # seconds
