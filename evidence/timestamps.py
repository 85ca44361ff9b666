"""Judging a trusted timestamp and the checkpoint that it dates. Pure; what a token proves: `ledger.timestamps`."""

from __future__ import annotations

from datetime import UTC, datetime

from evidence.verification import VerificationReport
from ledger.errors import LedgerError
from ledger.timestamps import TimestampTrust, TrustedTime, verify_timestamp
from ledger.trust import TrustPolicy

__all__ = ["verify_dated"]


def _in_words(trusted: TrustedTime) -> str:
    moment = datetime.fromtimestamp(trusted.time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
    accuracy = "" if trusted.accuracy_ms is None else f", accurate to {trusted.accuracy_ms / 1000:g} s"
    return f"these bytes existed at {moment} UTC{accuracy}, says {trusted.authority} (policy {trusted.policy})"


def verify_dated(checkpoint: bytes, token: bytes, authority: TimestampTrust, trust: TrustPolicy) -> VerificationReport:
    """Verify a checkpoint and the token that dates it.

    Args:
        checkpoint: The very bytes that were dated.
        token: The authority's whole answer, DER.
        authority: Whose tokens count, from outside of both.
        trust: Whose checkpoints count, from outside of both.
    """
    report = VerificationReport(subject="a checkpoint and its trusted timestamp")
    try:
        verified = trust.verify(checkpoint)
    except LedgerError as error:
        report.fail("checkpoint", "the checkpoint", error)
    else:
        names = ", ".join(f"{key.name} {key.key_id.hex()}" for key in verified.signers)
        report.hold(
            "checkpoint", f"tree of {verified.head.size} leaves of {verified.checkpoint.origin}, signed by {names}"
        )
    try:
        report.hold("timestamp", _in_words(verify_timestamp(token, checkpoint, authority)))
    except LedgerError as error:
        report.fail("timestamp", "the token", error)
    report.not_checked.append("revocation: whether the authority's certificate was revoked before that time")
    return report
