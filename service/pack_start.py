"""Where a pack of a pruned log begins: at an anchored checkpoint behind the minimum index and before the period.

A pack holds every entry of its range. Without pruning the range begins at leaf 0; entries that are no longer served are
in no new pack, so that one whose period reaches into them cannot be made, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ledger.errors import EvidenceError, MalformedError, NotFoundError, VerificationError
from ledger.trust import TrustPolicy

if TYPE_CHECKING:
    from service.wiring.services import Services

__all__ = ["start_checkpoint"]

_MILLISECONDS: Final = 1000


def start_checkpoint(services: Services, trust: TrustPolicy, from_ms: int, size: int) -> bytes | None:
    """Return the checkpoint at which a pack begins, or None: at leaf 0, for the log was never pruned.

    Args:
        services: The log's parts.
        trust: The maker's trust policy.
        from_ms: When the period begins, POSIX milliseconds.
        size: Leaves of the pack's last checkpoint.

    Raises:
        EvidenceError: The period reaches into what was pruned, as far as anchored checkpoints tell.
        LedgerError: A store or the anchor failed.
    """
    minimum = services.minimum_index.current()
    if minimum == 0:
        return None
    log_id = services.identity.log_id
    for wanted in services.anchor.sizes(log_id, above=minimum - 1):
        if wanted >= size:
            break
        try:
            checkpoint = services.anchor.get(log_id, wanted)
            verified = trust.verify(checkpoint)
        except (NotFoundError, MalformedError, VerificationError):
            # What else is kept there is the audit's to tell: the next one will do.
            continue
        signed_ms = verified.timestamps.get(verified.checkpoint.origin, 0) * _MILLISECONDS
        # The first behind the minimum index is the oldest: if that is too young, all are.
        if not 0 < signed_ms <= from_ms:
            break
        return checkpoint
    raise EvidenceError(
        f"the log was pruned below leaf {minimum} by its published minimum index, and no anchored checkpoint from "
        "before the period stands behind that: what the period needs is no longer served"
    )
