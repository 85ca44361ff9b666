"""What becomes of payloads in the course of time: erased, held, expired, for one log of one service.

The steps themselves are in `ledger.erasure` and `ledger.expiry`. Here is when they are taken: before the service
answers, again and again in the background, and when somebody asks.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog
import yaml

from ledger.anchoring import HoldableStore
from ledger.bodies import HoldEvent, RetentionEvent
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.commitments import SALT_BYTES
from ledger.erasure import ErasureKeeper, locked
from ledger.errors import (
    ConfigError,
    MalformedError,
    NotFoundError,
    SignatureError,
    SignatureInvalidError,
    TrustPolicyError,
)
from ledger.expiry import Expirer
from ledger.holds import HoldBook, check_hold
from ledger.keyring import Keyring
from ledger.ports import Draft, LogStore, RecordSink, TileStore, commit
from ledger.prover import Prover
from ledger.records import Record, decode_entry, verify_record_signature
from ledger.retention import RetentionPolicy, parse_retention
from ledger.tasks import Repeating
from ledger.tiles import CHECKPOINT_PATH
from ledger.vault import ErasableKeys

__all__ = ["Lifecycle", "erasures_beyond", "load_retention", "own_record_check"]

_log = structlog.get_logger()

_FORGET_SECONDS: Final = 5.0
_ROLE: Final = "service"
_UNKNOWN: Final = -1
"""Of the holds in stores: this process has not looked yet."""
_HOLD_AGAIN_SECONDS: Final = 300.0


def load_retention(path: Path | None, tenant: str) -> RetentionPolicy:
    """Read the retention policy; without a file everything is kept for ever.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    if path is None:
        return RetentionPolicy()
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"TALLYSTICK_RETENTION: the file cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("TALLYSTICK_RETENTION: the file is not YAML") from error
    try:
        return parse_retention(value, tenant)
    except ConfigError as error:
        raise ConfigError(f"TALLYSTICK_RETENTION: {error}") from error


def erasures_beyond(
    log_id: str, store: LogStore, tiles: TileStore, public_keys: Callable[[], Iterable[bytes]]
) -> Iterator[Record]:
    """Yield what the service recorded of erasures and expiries beyond the end of a store that was put back.

    Args:
        log_id: Which log.
        store: The log store.
        tiles: Its tiles and bundles, which may be newer.
        public_keys: Returns those that the service has or had: nothing is destroyed on the word of a bundle that
            somebody else wrote, and nothing is left because a key was replaced since.

    Raises:
        LedgerError: A store failed.
    """
    try:
        shown = parse_unverified_checkpoint(tiles.get(log_id, CHECKPOINT_PATH)).claim.size
    except (NotFoundError, MalformedError):
        return
    known = store.sequenced_size(log_id)
    if shown <= known:
        return
    keys = tuple(public_keys())
    for entry in Prover(tiles, log_id).entries(known, shown, shown):
        with suppress(MalformedError):
            record = decode_entry(entry)
            if record.log_id == log_id and any(_signed(record, key) for key in keys):
                yield record


def _signed(record: Record, public_key: bytes) -> bool:
    try:
        verify_record_signature(record, public_key)
    except (MalformedError, SignatureError):
        return False
    return True


def own_record_check(keyring: Keyring, service_id: str, refresh: Callable[[], object]) -> Callable[[int, Record], None]:
    """Return a check that a record of the log was written and signed by the service itself.

    Args:
        keyring: The log's keys; what it notes of records is left alone.
        service_id: The service's enforcer id.
        refresh: Reads key records that are new: another process may have signed with a key not known here yet.
    """

    def signed(index: int, record: Record) -> bool:
        for key in keyring.keys:
            # A key that was declared compromised later still counts here: to pass over what it signed would lift holds
            # and bring erased keys back. What it signed since then, the audit names.
            if (key.purpose, key.subject) == ("enforcer", service_id) and key.first_leaf <= index:
                with suppress(SignatureInvalidError):
                    verify_record_signature(record, key.public_key)
                    return True
        return False

    def check(index: int, record: Record) -> None:
        if record.enforcer_id != service_id:
            raise TrustPolicyError(f"leaf {index} is for the service to write, and {record.enforcer_id} wrote it")
        if signed(index, record):
            return
        refresh()
        if not signed(index, record):
            raise SignatureInvalidError(f"leaf {index} is not signed by a key of the service")

    return check


def _warn(event: str) -> Callable[[Exception], None]:
    return lambda error: _log.warning(event, error=type(error).__name__)


class Lifecycle:
    """Erasure, holds and expiry of one log. Methods belong to one event loop.

    Attributes:
        keeper: Erases.
        expirer: Lets payloads expire.
        works: What is repeated.
    """

    def __init__(
        self,
        log_id: str,
        *,
        keeper: ErasureKeeper,
        expirer: Expirer,
        keys: ErasableKeys,
        sink: RecordSink,
        actor: str,
        beyond: Callable[[], Iterator[Record]],
        interval_seconds: float,
        holdable: Sequence[HoldableStore] = (),
    ) -> None:
        """Take the parts; `apply` comes before everything else.

        Args:
            log_id: Which log.
            keeper: Erases.
            expirer: Lets payloads expire.
            keys: Subject keys.
            sink: Records.
            actor: The service's own pseudonym.
            beyond: Reads what tiles say of erasures beyond the store's end.
            interval_seconds: How often expiry is looked for.
            holdable: Anchor and tile store, where what they lock can be held.
        """
        self.keeper = keeper
        self.expirer = expirer
        self._log_id = log_id
        self._keys = keys
        self._sink = sink
        self._actor = actor
        self._beyond = beyond
        self._interval = interval_seconds
        self._holdable = tuple(holdable)
        self._stores_held_since: int | None = _UNKNOWN
        self._holding = Repeating(
            "legal holds in stores",
            self._hold_stores,
            retry_seconds=min(interval_seconds, _HOLD_AGAIN_SECONDS),
            on_failure=_warn("stores_not_held"),
        )
        self.works = (
            Repeating(
                "forgetting keys",
                self._forget,
                first_seconds=_FORGET_SECONDS,
                retry_seconds=_FORGET_SECONDS,
                on_failure=_warn("subject_keys_not_looked_at"),
            ),
            self._holding,
            Repeating("expiry", self._expire, retry_seconds=interval_seconds, on_failure=_warn("expiry_failed")),
        )

    async def apply_beyond(self) -> None:
        """Destroy again what the tiles say was destroyed, should the store have been put back to before.

        Raises:
            LedgerError: A store failed.
        """
        beyond = await asyncio.to_thread(lambda: list(self._beyond()))
        if not beyond:
            # Nothing is to be destroyed: what is wrong with the keys is told by whoever knows which one it is.
            return
        async with locked(self._keys, self._log_id):
            await asyncio.to_thread(self.keeper.apply_records, beyond)

    async def apply(self) -> None:
        """Destroy again what the log says was destroyed, and finish what was interrupted.

        INVARIANT 6: this ends before anybody is answered, so that keys that came back from a backup open nothing.

        Raises:
            LedgerError: A store failed, or holds an order that nobody signed.
        """
        async with locked(self._keys, self._log_id):
            await asyncio.to_thread(self.keeper.apply)
        await self.keeper.finish()
        await self.expirer.finish()
        await self._state_policy()

    async def start(self) -> None:
        """Begin to look for what is past its time."""
        for work in self.works:
            work.start()

    async def stop(self) -> None:
        """End it; a bucket in hand is finished, by this process or the next."""
        for work in self.works:
            await work.stop()

    async def _state_policy(self) -> None:
        """Record the policy if it is not the one that was recorded last."""
        policy = self.expirer.policy
        if policy.anchor:
            # Nothing lets go of anchored copies by it: what it states is kept for longer, never for less.
            _log.warning("retention_stated_and_not_applied", places=["anchor"])
        known = await asyncio.to_thread(self.keeper.policy_digest)
        if policy.digest == known or (known is None and not policy.classes):
            return
        body = RetentionEvent(
            action="policy", actor=self._actor, actor_role=_ROLE, policy=policy.digest, classes=policy.classes
        )
        await self._sink.append([Draft(body=body)])

    async def _forget(self) -> float:
        await asyncio.to_thread(self._keys.forget)
        return _FORGET_SECONDS

    async def _expire(self) -> float:
        # Whatever is begun and fails is finished by the next turn.
        await self.keeper.finish()
        for expiry in await self.expirer.expire():
            _log.info("payloads_expired", bucket=expiry.bucket.name, payloads=expiry.payloads, held=expiry.held)
        return self._interval

    async def _hold_stores(self) -> float:
        """Hold what anchor and tile store lock while any hold is in force, for its record is in there; else do not.

        There may be millions of objects: nobody who places a hold waits for this. Each copy has its own retention until
        it is done.
        """
        while True:
            book = await self.holds()
            since, known = book.unbroken_since, self._stores_held_since
            # A log that never had a hold is not asked about, and what was let go once is not let go again.
            if not book.ever or (since is None and known is None):
                return self._interval
            for store in self._holdable:
                await asyncio.to_thread(store.hold, self._log_id, on=since is not None, anew=since != known)
            self._stores_held_since = since
            # A hold that was placed meanwhile, by whatever process, must not be let go together with the last one.
            if (await self.holds()).unbroken_since == since:
                return self._interval

    # --- holds -------------------------------------------------------------------------------------------------------

    async def holds(self) -> HoldBook:
        """Return the holds in force.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(self.keeper.holds)

    async def place(self, event: HoldEvent, reason: str) -> int:
        """Place a hold; it stops every erasure and expiry that begins after this returns.

        Args:
            event: What it covers, and who places it.
            reason: The matter, for the vault.

        Returns:
            The leaf index of its record.

        Raises:
            MalformedError: It covers nothing.
            LedgerError: A store failed.
        """
        check_hold(event)
        commitment, opening = commit("reason", secrets.token_bytes(SALT_BYTES), reason.encode())
        placed = msgspec.structs.replace(event, action="placed", reason=commitment)
        async with locked(self._keys, self._log_id):
            # INVARIANT: what was ordered before a hold is done before it, or there is no hold. Left undone it would be
            # done by the next start, when the hold says that it cannot be.
            await self.keeper.finish_orders()
            await self.expirer.finish_orders()
            (done,) = await self._sink.append([Draft(body=placed, openings=(opening,))])
        self._holding.wake()
        return done.index

    async def release(
        self, hold_id: str, actor: str, actor_role: str, key_id: str, *, also: Collection[str] = ()
    ) -> tuple[str, int]:
        """Ask for a hold's release, or confirm what somebody else has asked for.

        Args:
            hold_id: Which hold.
            actor: Pseudonym of whoever asks or confirms.
            actor_role: Under which role.
            key_id: Which key made the pseudonym.
            also: What else that person is called; see `service.people`.

        Returns:
            What was done, ``release_requested`` or ``released``, and the leaf index of its record.

        Raises:
            NotFoundError: There is no such hold in force.
            ConflictError: Who asked cannot confirm.
            LedgerError: A store failed.
        """
        async with locked(self._keys, self._log_id):
            action = (await self.holds()).next_step(hold_id, actor, key_id, also)
            body = HoldEvent(
                action="released" if action == "released" else "release_requested",
                hold_id=hold_id,
                actor=actor,
                actor_role=actor_role,
            )
            (done,) = await self._sink.append([Draft(body=body)])
        if action == "released":
            self._holding.wake()
        return action, done.index
