"""Tables of the service itself: tokens, dashboard sessions, jobs. None of them is evidence."""

from __future__ import annotations

from sqlalchemy import Column, Index, MetaData, String, Table, Text, text

from ledger.database import NAMING_CONVENTION, BigInt

__all__ = [
    "api_tokens",
    "enforcer_contacts",
    "enrolment_tokens",
    "fleet_heads",
    "fleet_origins",
    "fleet_reservations",
    "fleet_totals",
    "impact_jobs",
    "metadata",
    "pack_jobs",
    "restriction_acknowledgements",
    "token_persons",
    "web_sessions",
    "webhooks",
]

metadata = MetaData(naming_convention=NAMING_CONVENTION)


def _log_id() -> Column[str]:
    return Column("log_id", String(63), primary_key=True)


api_tokens = Table(
    "api_tokens",
    metadata,
    _log_id(),
    Column("token_sha256", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("enforcer_id", String(128)),
    Column("created_ms", BigInt, nullable=False),
    Column("expires_ms", BigInt),
    Column("revoked_ms", BigInt),
)
"""Tokens are kept as SHA-256 of 32 random bytes; what they open is in the row."""

token_persons = Table(
    "token_persons",
    metadata,
    _log_id(),
    Column("token_sha256", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("issuer", String(512), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("acr", String(256), nullable=False),
    Column("amr", Text, nullable=False),
    Column("provider_session", String(256), nullable=False),
    Column("seal", String(64), nullable=False),
    Index(None, "log_id", "issuer", "subject"),
)
"""Who stands behind a token of `api_tokens`: who logged in for it, or (``owned``) who had a machine's issued."""

enforcer_contacts = Table(
    "enforcer_contacts",
    metadata,
    _log_id(),
    Column("enforcer_id", String(128), primary_key=True),
    Column("heard_ms", BigInt, nullable=False),
)
"""When an enforcer's token last opened anything."""

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    _log_id(),
    Column("token_sha256", String(64), primary_key=True),
    Column("enforcer_id", String(128), nullable=False),
    Column("created_ms", BigInt, nullable=False),
    Column("expires_ms", BigInt, nullable=False),
    Column("refusals", BigInt, nullable=False),
    Column("revoked_ms", BigInt),
    Column("used_ms", BigInt),
    Column("claim_sha256", String(64)),
)
"""A token that was used is bound to one claim: the enforcer's id, its key, and the digest of its API token."""

web_sessions = Table(
    "web_sessions",
    metadata,
    _log_id(),
    Column("session_sha256", String(64), primary_key=True),
    Column("token_sha256", String(64), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_ms", BigInt, nullable=False),
    Column("expires_ms", BigInt, nullable=False),
)

pack_jobs = Table(
    "pack_jobs",
    metadata,
    _log_id(),
    Column("job_id", String(36), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("step", String(128), nullable=False),
    Column("request", Text, nullable=False),
    Column("requested_by", String(32), nullable=False),
    Column("created_ms", BigInt, nullable=False),
    Column("finished_ms", BigInt),
    Column("pack_id", String(36)),
    Column("leaves", BigInt),
    Column("zip_sha256", String(64)),
    Column("pdf_sha256", String(64)),
    Column("error", Text),
    Index(None, "log_id", "created_ms"),
)

impact_jobs = Table(
    "impact_jobs",
    metadata,
    _log_id(),
    Column("job_id", String(36), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("attempt", BigInt, nullable=False),
    Column("request", Text, nullable=False),
    Column("access", Text, nullable=False),
    Column("created_ms", BigInt, nullable=False),
    Column("finished_ms", BigInt),
    Column("done_leaves", BigInt, nullable=False),
    Column("all_leaves", BigInt, nullable=False),
    Column("report_sha256", String(64)),
    Column("lines_sha256", String(64)),
    Column("error", Text),
    Index(None, "log_id", "created_ms"),
)
"""The access record of the request stands beside it, so that whoever ends the job records it in the same name."""

fleet_heads = Table("fleet_heads", metadata, _log_id(), Column("version", BigInt, nullable=False))
"""The version of a fleet's windows, by change and never below the clock; whoever changes them locks this row first."""

fleet_origins = Table(
    "fleet_origins",
    metadata,
    _log_id(),
    Column("origin", String(192), primary_key=True),
    Column("version", BigInt, nullable=False),
)
"""At which version something of a gateway was taken in last."""

fleet_totals = Table(
    "fleet_totals",
    metadata,
    _log_id(),
    Column("digest", String(32), primary_key=True),
    Column("subject", String(128), primary_key=True),
    Column("slot", BigInt, primary_key=True, autoincrement=False),
    Column("origin", String(192), primary_key=True),
    Column("total", String(64), nullable=False),
    Column("forget_ms", BigInt, nullable=False),
    Column("version", BigInt, nullable=False),
    Index(None, "log_id", "version"),
    Index(None, "log_id", "forget_ms"),
)
"""What each gateway has counted of a window, by subject (a pseudonym) and slot; totals as text, for they are long."""

fleet_reservations = Table(
    "fleet_reservations",
    metadata,
    _log_id(),
    Column("enforcer_id", String(128), primary_key=True),
    Column("decision_id", String(36), primary_key=True),
    Column("digest", String(32), primary_key=True),
    Column("subject", String(128), nullable=False),
    Column("slot", BigInt, nullable=False),
    Column("amount", String(64), nullable=False),
    Column("forget_ms", BigInt, nullable=False),
    Column("released", BigInt, nullable=False),
    Column("created_ms", BigInt, nullable=False),
    Index(None, "log_id", "created_ms"),
)
"""What strict caps have given out, by decision, so that asking twice takes once."""
restriction_acknowledgements = Table(
    "restriction_acknowledgements",
    metadata,
    _log_id(),
    Column("enforcer_id", String(128), primary_key=True),
    Column("version", BigInt, nullable=False),
    Column("seen_ms", BigInt, nullable=False),
)
"""Which set of restrictions each gateway said last that it has in force; see `service.reach`."""

webhooks = Table(
    "webhooks",
    metadata,
    _log_id(),
    Column("webhook_id", String(36), primary_key=True),
    Column("url", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("symmetric", BigInt, nullable=False),
    Column("internal", BigInt, nullable=False),
    Column("created_ms", BigInt, nullable=False),
    Column("cursor_leaf", BigInt, nullable=False),
    Column("gone", BigInt, nullable=False),
    Column("failures", BigInt, nullable=False),
    Column("next_ms", BigInt, nullable=False),
    Column("delivered_ms", BigInt),
    Column("error", Text, nullable=False),
    Column("skipped", BigInt, nullable=False),
    Column("told", Text, nullable=False),
    Column("recent", Text, nullable=False, server_default=text("'[]'")),
)
"""Where news of the log are sent to, and up to which leaf they were taken; see `service.notifications`."""
