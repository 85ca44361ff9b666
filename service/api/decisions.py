"""Decisions and the other records of enforcers: written, searched, read, proved, opened."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from ledger.bodies import Decision, Outcome
from ledger.canonical import MAX_SAFE_INTEGER
from ledger.catalog import MAX_PAGE, DecisionQuery
from ledger.commitments import fingerprint, pseudonym
from ledger.errors import MalformedError, NotFoundError
from ledger.notes import encode_base64
from ledger.ports import Acknowledgement, PendingEntry
from ledger.records import Record, decode_entry, record_type
from service.api.common import PROBLEMS, RequestBody, ServicesDep, json_response, permitted, read_body
from service.api.routing import ServiceRoute
from service.auth import Caller, Permission
from service.fairness import Room, takes_records
from service.ingest import count_ahead, decode_submissions, sequence_admitted
from service.left_out import ALWAYS
from service.left_out import of_a_page as left_out_of_a_page
from service.left_out import of_the_pruned as left_out_of_the_pruned
from service.left_out import of_the_tail as left_out_of_the_tail
from service.wiring.services import Services

__all__ = ["find_decision", "get_proof", "router"]

router = APIRouter(tags=["decisions"], responses=PROBLEMS, route_class=ServiceRoute)

_RecordId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Name = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$")]

_SUBMISSION_DOC = {
    "requestBody": {
        "required": True,
        "description": "One submission, an array of them, or NDJSON. A batch is atomic; a repeated record is "
        "acknowledged with its first index.",
        "content": {
            kind: {
                "schema": {
                    "type": "object",
                    "required": ["record"],
                    "properties": {
                        "record": {"type": "object", "description": "a signed record, see docs/formats.md"},
                        "openings": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["field", "salt", "payload"],
                                "properties": {
                                    "field": {"type": "string"},
                                    "salt": {"type": "string", "contentEncoding": "base64"},
                                    "payload": {"type": "string", "contentEncoding": "base64"},
                                },
                            },
                        },
                    },
                }
            }
            for kind in ("application/json", "application/x-ndjson")
        },
    }
}


@router.post(
    "/v1/decisions",
    status_code=201,
    openapi_extra=_SUBMISSION_DOC,
    summary="Append records",
    response_description="Where each record stands in the log; it is durable.",
)
async def append_records(
    request: Request,
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.WRITE_RECORDS))],
    wait: Annotated[Literal["proof"] | None, Query(description="answer once a checkpoint covers the records")] = None,
) -> Response:
    """Append an enforcer's records; when this answers 201 they are durable and have their indexes for ever."""
    takes_records.set(True)
    # What waits to be decoded, judged and sequenced is bounded in bytes, beside the records that the sequencer counts.
    with services.bytes_in_hand.take() as room:
        done = await _append(request, services, caller.enforcer_id or "", room)
    if wait is None:
        return json_response({"log_id": caller.log_id, "results": [_result(item) for item in done]}, 201)
    return await _with_proofs(request, services, done)


async def _append(request: Request, services: Services, enforcer_id: str, room: Room) -> list[Acknowledgement]:
    body = await read_body(request, services.settings.max_request_bytes, room)
    content_type = request.headers.get("content-type", "")

    def admit() -> list[PendingEntry]:
        submissions = decode_submissions(body, content_type, max_records=services.settings.max_batch_records)
        return services.admission.admit(submissions, enforcer_id)

    async with services.large_turns.take(len(body)):
        entries = await asyncio.to_thread(admit)
    done = await sequence_admitted(services.sequencer, services.admission, entries, enforcer_id)
    _count(services, entries, done)
    return done


def _count(services: Services, entries: Sequence[PendingEntry], done: Sequence[Acknowledgement]) -> None:
    services.metrics.records_ahead.inc(count_ahead(entries, services.clock.now_ms()))
    services.metrics.duplicates.inc(sum(item.duplicate for item in done))
    pairs = zip(entries, done, strict=True)
    for kind, count in Counter(record_type(entry.record) for entry, item in pairs if not item.duplicate).items():
        services.metrics.records.labels(kind).inc(count)


def _result(done: Acknowledgement) -> dict[str, object]:
    return {"record_id": done.record_id, "leaf_index": done.index, "duplicate": done.duplicate}


async def _with_proofs(request: Request, services: Services, done: Sequence[Acknowledgement]) -> Response:
    """Answer with a `.tlog-proof` for each record: as text for one record if text is asked for, else in JSON."""
    size = max(item.index for item in done) + 1
    published = await services.publishing.wait_for(size, services.settings.proof_timeout_seconds)

    def prove() -> list[str]:
        files = [services.prover.proof_file(item.index, published.checkpoint) for item in done]
        return [file.encode().decode() for file in files]

    proofs = await asyncio.to_thread(prove)
    if len(done) == 1 and "text/plain" in request.headers.get("accept", ""):
        return PlainTextResponse(proofs[0], 201, headers={"Tallystick-Leaf-Index": str(done[0].index)})
    results = [{**_result(item), "proof": proof} for item, proof in zip(done, proofs, strict=True)]
    return json_response({"log_id": services.identity.log_id, "results": results}, 201)


class DecisionFilter(BaseModel):
    """Query parameters of a search."""

    # A filter that is not known would be one that does not restrict: the answer would be to another question.
    model_config = ConfigDict(extra="forbid")

    time_from_ms: Annotated[int | None, Query(ge=0, le=MAX_SAFE_INTEGER, description="POSIX milliseconds")] = None
    time_to_ms: Annotated[int | None, Query(ge=0, le=MAX_SAFE_INTEGER, description="exclusive")] = None
    agent: _Name = None
    user: Annotated[str | None, Query(max_length=256, description="the user's name; only its pseudonym is sought")] = (
        None
    )
    session: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None
    server: _Name = None
    tool: _Name = None
    rule: _Name = None
    decision: Literal["PERMIT", "DENY", "INDETERMINATE", "NOT_APPLICABLE"] | None = None
    enforcement: Literal["allow", "deny", "ask", "kill"] | None = None
    mode: Literal["enforce", "observe"] | None = None
    reason: _Name = None
    bundle_revision: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$")] = None
    trace: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None
    digest: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9a-f]{64}(,[0-9a-f]{64}){0,3}$",
            description="SHA-256 of arguments sent, of a result received, or of a text, document or value in one; "
            "of several, joined by commas, any",
        ),
    ] = None
    cursor: Annotated[int | None, Query(ge=0, le=MAX_SAFE_INTEGER, description="next_cursor of the page before")] = None
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50

    def to_query(self, pseudonym_keys: Sequence[bytes]) -> DecisionQuery:
        """Return the search, with names and digests turned into what the log holds under any of its keys."""
        return DecisionQuery(
            from_ms=self.time_from_ms,
            to_ms=self.time_to_ms,
            agent=self.agent,
            users=None if self.user is None else tuple(pseudonym(key, "user", self.user) for key in pseudonym_keys),
            session=self.session,
            server=self.server,
            tool=self.tool,
            rule=self.rule,
            decision=self.decision,
            enforcement=self.enforcement,
            mode=self.mode,
            reason=self.reason,
            bundle_revision=self.bundle_revision,
            trace_id=self.trace,
            fingerprints=None
            if self.digest is None
            else tuple(
                fingerprint(key, bytes.fromhex(digest)) for key in pseudonym_keys for digest in self.digest.split(",")
            ),
            before=self.cursor,
            limit=self.limit,
        )


def _read(services: Services, indexes: Sequence[int]) -> list[dict[str, object]]:
    """Return records from the log itself, verbatim, with their leaf indexes."""
    return [
        {"leaf_index": index, "record": msgspec.Raw(next(services.reader.entries(index, index + 1)))}
        for index in indexes
    ]


@router.get(
    "/v1/decisions",
    summary="Search decisions, newest first",
    response_description="Decisions, and the cursor of the next page.",
)
async def search_decisions(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))],
    wanted: Annotated[DecisionFilter, Query()],
) -> Response:
    """Search; the answer is read from the log, the index only finds it."""
    query = wanted.to_query(services.keys.pseudonym_seeds)
    found = await asyncio.to_thread(services.catalog.search, caller.log_id, query)
    minimum = await asyncio.to_thread(services.minimum_index.current)
    indexes = [index for index in found if index >= minimum]
    items = await asyncio.to_thread(_read, services, indexes)
    await services.access.record([services.access.draft(caller, "query", "decisions", items=len(items))])
    more = indexes[-1] if len(indexes) == wanted.limit else None
    sequenced = await asyncio.to_thread(services.sequenced_size)
    published = services.publishing.published
    left_out = [
        *left_out_of_a_page("older decisions that match", wanted.limit, more=more is not None),
        *left_out_of_the_pruned(minimum),
        *left_out_of_the_tail(sequenced, published.head.size if published else 0),
        *ALWAYS,
    ]
    return json_response({"items": items, "next_cursor": more, "left_out": left_out})


def find_decision(services: Services, decision_id: str) -> tuple[int, bytes, Record]:
    """Return a decision's leaf index, its entry and the record, read from the log itself.

    Raises:
        NotFoundError: There is no such decision.
        PrunedError: It is no longer served.
        StorageError: A store failed.
    """
    index = services.catalog.index_of(services.identity.log_id, decision_id)
    services.minimum_index.require(index)
    entry = next(services.reader.entries(index, index + 1))
    record = decode_entry(entry)
    # The index is a convenience: what it led to is checked before it is shown (invariant 3).
    if record.record_id != decision_id or not isinstance(record.body, Decision):
        raise NotFoundError(f"there is no decision {decision_id}")
    return index, entry, record


def _outcomes(services: Services, decision_id: str) -> list[tuple[int, Record]]:
    """Return leaf indexes and records of what became of a call; as above, the index is not believed."""
    found = []
    minimum = services.minimum_index.current()
    for index in services.catalog.outcomes_of(services.identity.log_id, decision_id):
        # An outcome stands behind its decision, and is served if that is; one that does not was never its.
        if index < minimum:
            continue
        record = services.reader.record(index)
        if isinstance(record.body, Outcome) and record.body.decision_id == decision_id:
            found.append((index, record))
    return found


@router.get(
    "/v1/decisions/{decision_id}",
    summary="One decision with its outcome",
    response_description="The decision's record, and those of its outcome.",
)
async def get_decision(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.READ_DECISIONS))],
    decision_id: _RecordId,
) -> Response:
    """Return a decision and what became of the call."""
    index, entry, _record = await asyncio.to_thread(find_decision, services, decision_id)
    outcomes = await asyncio.to_thread(_outcomes, services, decision_id)
    found = await asyncio.to_thread(_read, services, [leaf for leaf, _ in outcomes])
    await services.access.record([services.access.draft(caller, "read", "record", target_id=decision_id, items=1)])
    return json_response({"leaf_index": index, "record": msgspec.Raw(entry), "outcomes": found})


@router.get(
    "/v1/decisions/{decision_id}/proof",
    summary="Inclusion proof",
    response_description="The proof, a C2SP .tlog-proof with the signed checkpoint.",
    response_class=PlainTextResponse,
)
async def get_proof(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.READ_LOG))],
    decision_id: _RecordId,
) -> Response:
    """Return a C2SP `.tlog-proof` for any record, waiting for the next checkpoint if need be."""
    index = await asyncio.to_thread(services.catalog.index_of, caller.log_id, decision_id)
    published = await services.publishing.wait_for(index + 1, services.settings.proof_timeout_seconds)
    file = await asyncio.to_thread(services.prover.proof_file, index, published.checkpoint)
    headers = {
        "Tallystick-Leaf-Index": str(index),
        "Content-Disposition": f'attachment; filename="{decision_id}.tlog-proof"',
    }
    return PlainTextResponse(file.encode().decode(), headers=headers)


class OpeningRequest(RequestBody):
    """Why a payload is opened."""

    purpose: Annotated[str, Field(min_length=8, max_length=1000, description="recorded, in the vault")]
    fields: Annotated[
        tuple[Literal["message", "request", "masked_request", "result"], ...], Field(min_length=1, max_length=3)
    ] = ("request",)


@router.post(
    "/v1/decisions/{decision_id}/openings",
    summary="Open vaulted payloads, for a purpose",
    response_description="The payloads in base64, each checked against its leaf.",
)
async def open_payloads(
    services: ServicesDep,
    caller: Annotated[Caller, Depends(permitted(Permission.OPEN_PAYLOADS))],
    decision_id: _RecordId,
    wanted: OpeningRequest,
) -> Response:
    """Open what a decision or its outcome committed to; that it was opened, by whom and why, is recorded first."""
    _index, _entry, record = await asyncio.to_thread(find_decision, services, decision_id)
    records = [record]
    if "result" in wanted.fields:
        records += [outcome for _, outcome in await asyncio.to_thread(_outcomes, services, decision_id)]
    # INVARIANT: the access record is durable before anything is handed out.
    draft = services.access.draft(
        caller, "open_payload", "record", target_id=decision_id, items=len(wanted.fields), purpose=wanted.purpose
    )
    await services.access.record([draft])
    opened = await asyncio.to_thread(_open, services, records, wanted.fields)
    return json_response({"decision_id": decision_id, "openings": opened})


def _open(services: Services, records: Sequence[Record], fields: Sequence[str]) -> list[dict[str, object]]:
    opened: list[dict[str, object]] = []
    for name in dict.fromkeys(fields):
        holder = next((record for record in records if getattr(record.body, name, None) is not None), None)
        if holder is None:
            raise NotFoundError(f"the record committed to no field {name}")
        opening = services.vault.open(holder, name)
        opened.append(
            {
                "record_id": holder.record_id,
                "field": name,
                "salt": encode_base64(opening.salt),
                "payload": encode_base64(opening.payload),
                "sha256": hashlib.sha256(opening.payload).hexdigest(),
            }
        )
    if not opened:
        raise MalformedError("nothing was asked for")
    return opened
