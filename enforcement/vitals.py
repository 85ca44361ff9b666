"""What a gateway says of itself with each heartbeat.

Pure. When heartbeats are made is `enforcement.recorder`'s part; what the service makes of them is `service.fleet`'s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from enforcement.batches import Depth
from enforcement.clock_offset import Offset
from enforcement.config import BundleSettings, GatewayConfig
from ledger.bodies import Heartbeat
from ledger.canonical import canonical_bytes
from ledger.commitments import fingerprint
from ledger.restrictions import NO_VERSION

__all__ = ["Vitals", "config_fingerprint", "contact_ms", "count_modes", "heartbeat", "vitals_of"]

_MS_PER_SECOND: Final = 1000
_SHARED: Final = ("zone", "networks", "principals", "servers", "allowed_origins", "limits", "sessions")
"""What gateways of one fleet have in common: what is judged, of whom, and how. Places and names are their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """The state of a gateway beside its spool.

    Attributes:
        bundle_revision: The bundle at hand, or None.
        bundle_age_ms: How long ago the service confirmed it.
        signed_bundles: Bundles must be signed.
        offset: Of the gateway's clock, if it was measured.
        contact_ms: The service hears of the gateway at least this often.
        enforced: Servers, and tools with a mode of their own, whose decisions are enforced.
        observed: Those whose decisions are not.
        config_fingerprint: See there.
        restrictions_version: Version of the set of restrictions in force; None before the first.
    """

    bundle_revision: str | None = None
    bundle_age_ms: int | None = None
    signed_bundles: bool = False
    offset: Offset | None = None
    contact_ms: int | None = None
    enforced: int = 0
    observed: int = 0
    config_fingerprint: str | None = None
    restrictions_version: int | None = None


def vitals_of(
    config: GatewayConfig,
    pseudonym_key: bytes,
    *,
    revision: str | None,
    age_ms: int | None,
    offset: Offset | None,
    restrictions: int = NO_VERSION,
) -> Vitals:
    """Return the state of a gateway.

    Args:
        config: The configuration in force.
        pseudonym_key: The tenant's pseudonym key.
        revision: The bundle at hand, or None.
        age_ms: How long ago the service confirmed it.
        offset: Of the gateway's clock, if it was measured.
        restrictions: Version of the set of restrictions in force.
    """
    enforced, observed = count_modes(config)
    return Vitals(
        bundle_revision=revision,
        bundle_age_ms=age_ms,
        signed_bundles=config.bundles.trusted_keys is not None,
        offset=offset,
        contact_ms=contact_ms(config.bundles, config.recording.heartbeat_seconds),
        enforced=enforced,
        observed=observed,
        config_fingerprint=config_fingerprint(config, pseudonym_key),
        restrictions_version=None if restrictions == NO_VERSION else restrictions,
    )


def heartbeat(
    kind: Literal["start", "periodic", "stop"],
    vitals: Vitals,
    *,
    version: str,
    depth: Depth,
    oldest_ms: int | None,
    previous_epoch: str | None = None,
) -> Heartbeat:
    """Return the body of a heartbeat.

    Args:
        kind: Which one.
        vitals: The gateway's state.
        version: Its version.
        depth: How much waits in its spool.
        oldest_ms: For how long the oldest of that has waited, or None if nothing waits.
        previous_epoch: For the first heartbeat of an epoch, the one before.
    """
    offset = vitals.offset
    return Heartbeat(
        kind=kind,
        version=version,
        spool_depth=depth.records,
        previous_epoch=previous_epoch,
        bundle_revision=vitals.bundle_revision,
        clock_offset_ms=None if offset is None else offset.offset_ms,
        clock_bound_ms=None if offset is None else offset.bound_ms,
        contact_ms=vitals.contact_ms,
        spool_bytes=depth.size_bytes,
        oldest_ms=oldest_ms,
        set_aside=depth.set_aside,
        enforced=vitals.enforced,
        observed=vitals.observed,
        bundle_age_ms=vitals.bundle_age_ms,
        signed_bundles=vitals.signed_bundles,
        config_fingerprint=vitals.config_fingerprint,
        restrictions_version=vitals.restrictions_version,
    )


def count_modes(config: GatewayConfig) -> tuple[int, int]:
    """Return how many servers, and tools with a mode of their own, are enforced, and how many are observed."""
    modes = [server.mode for server in config.servers]
    modes += [tool.mode for server in config.servers for tool in server.tools if tool.mode is not None]
    observed = modes.count("observe")
    return len(modes) - observed, observed


def contact_ms(bundles: BundleSettings, heartbeat_seconds: float) -> int:
    """Return after how many milliseconds, at the latest, the service hears of a gateway that lives.

    Args:
        bundles: How often it is asked for the bundle: a question that is held is asked again when it is answered.
        heartbeat_seconds: How often there is a heartbeat.
    """
    asked_seconds = max(bundles.poll_seconds, bundles.wait_seconds)
    return int(min(asked_seconds, heartbeat_seconds) * _MS_PER_SECOND)


def config_fingerprint(config: GatewayConfig, pseudonym_key: bytes) -> str:
    """Return a keyed fingerprint of what gateways of one fleet have in common: two that differ are not set up alike.

    It is keyed, as everything that is made of names of users (architecture.md, invariant 6), by the tenant's key, which
    all its gateways have.

    Args:
        config: The configuration in force; secrets stand in it by URI alone.
        pseudonym_key: The tenant's pseudonym key.

    Returns:
        32 hexadecimal digits.
    """
    shared = config.model_dump(mode="json", include=set(_SHARED))
    return fingerprint(pseudonym_key, hashlib.sha256(canonical_bytes(shared)).digest())
