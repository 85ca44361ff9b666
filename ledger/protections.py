"""What keeps an object of a bucket as it was written first: its lock, its writer's promise, what came over it.

For tiles (`ledger.stores.s3`) and anchored checkpoints (`ledger.anchors.s3_object_lock`) alike; judged in
`ledger.anchor_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.anchoring import Protection
from ledger.s3 import S3Bucket, S3Object, S3Version

__all__ = ["protection"]


def protection(bucket: S3Bucket, first: S3Object, versions: Sequence[S3Version]) -> Protection:
    """Return what protects an object.

    Args:
        bucket: Where it is.
        first: Its first version, as it was read.
        versions: Everything that stands under its key.

    Raises:
        DependencyError: The bucket failed.
    """
    lock = bucket.object_lock(versions[0].key, first.version)
    return Protection(
        mode=lock.mode if lock else None,
        retain_until_ms=lock.until_ms if lock else None,
        promised_until_ms=first.promised_until_ms,
        later_versions=sum(not one.marker for one in versions) - 1,
        hidden=any(one.marker for one in versions),
    )
