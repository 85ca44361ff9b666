"""Which bundle decides: the last one that the service confirmed, kept on disk, until it is too old.

What is elsewhere: asking the service (`enforcement.ledger_client`), evaluating (`policies.evaluate`).

INVARIANT 7: without a bundle, or with one that the service has not confirmed for ``max_age``, nothing is permitted. An
archive that does not have the revision under which it was handed out is not used, nor one that not everybody has signed
who must; what was in force stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import structlog

from enforcement.config import BundleSettings
from enforcement.ports import ActiveBundle, BundleSource, NoBundle, Unavailable, UnchangedBundle
from ledger.canonical import canonical_bytes, parse_json
from ledger.clock import Clock
from ledger.envelopes import EnvelopeKey
from ledger.errors import MalformedError, PolicySyntaxError, VerificationError
from ledger.files import replace_durably
from ledger.tasks import end
from policies.bundles import Bundle, parse_archive
from policies.signatures import verify_signature

__all__ = ["PolicySource", "Preparing", "StaleBundle"]

_LOG: Final = structlog.get_logger(__name__)
_ARCHIVE: Final = "bundle.json"
_SIGNATURE: Final = "bundle.dsse.json"
_CONFIRMED: Final = "bundle-confirmed.json"
_MS_PER_SECOND: Final = 1000
# How much later than in memory the last confirmation may stand on disk; it only makes a restart more cautious.
_SAVE_EVERY_MS: Final = 60_000
_SOON_SECONDS: Final = 0.1
_PREPARE_SECONDS: Final = 10.0


@runtime_checkable
class Preparing(Protocol):
    """An evaluator that can have a bundle ready before it is asked."""

    async def prepare(self, bundle: Bundle) -> None:
        """Have everything ready for decisions under a bundle."""
        ...


@dataclass(frozen=True, slots=True)
class StaleBundle:
    """A bundle is at hand, but the service has not confirmed it for too long."""

    revision: str


class PolicySource:
    """Holds the bundle in force and keeps it fresh. Owned by the event loop."""

    def __init__(
        self,
        source: BundleSource,
        directory: Path,
        settings: BundleSettings,
        clock: Clock,
        *,
        trusted: Sequence[EnvelopeKey] = (),
        on_adopted: Callable[[], None] = lambda: None,
        evaluator: object = None,
        on_canary: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """Take what was kept, if anything sound was kept.

        Args:
            source: Where bundles come from.
            directory: The state directory.
            settings: How often to ask, and how old a bundle may be.
            clock: Tells a bundle's age.
            trusted: Keys that must have signed a bundle; none if nobody need have.
            on_adopted: Told that another bundle decides from now on.
            evaluator: Asked to get ready for a bundle, if it can (`Preparing`); until it is, the bundle before decides.
            on_canary: Told which bundle is evaluated beside the one in force, whenever the service has said so.
        """
        self._source = source
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._trusted = tuple(trusted)
        self._on_adopted = on_adopted
        self._evaluator = evaluator
        self._on_canary = on_canary
        self._bundle: Bundle | None = None
        self._confirmed_ms = 0
        self._saved_ms = 0
        # Questions are numbered: the last one that was asked, and the last one whose answer counts.
        self._asked = self._answered = 0
        self._task: asyncio.Task[None] | None = None
        self._load()

    @property
    def revision(self) -> str | None:
        """Revision of the bundle at hand, stale or not."""
        return None if self._bundle is None else self._bundle.revision

    @property
    def age_ms(self) -> int | None:
        """How long ago the service confirmed the bundle at hand; None if there is none."""
        return None if self._bundle is None else max(0, self._clock.now_ms() - self._confirmed_ms)

    def current(self) -> Bundle | StaleBundle | None:
        """Return the bundle that decides now; None if there is none."""
        if self._bundle is None:
            return None
        now_ms = self._clock.now_ms()
        if now_ms < self._confirmed_ms:
            # The clock was set back: nobody knows how long ago it was, and from here on the age counts again.
            self._note(now_ms)
        age_ms = now_ms - self._confirmed_ms
        if age_ms > self._settings.max_age_seconds * _MS_PER_SECOND:
            return StaleBundle(self._bundle.revision)
        return self._bundle

    async def start(self) -> None:
        """Ask once, then keep asking."""
        if self._bundle is not None:
            await self._get_ready(self._bundle)
        await self.refresh()
        self._task = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Ask no more."""
        await end(self._task)
        self._task = None

    async def refresh(self, *, wait_seconds: float = 0.0) -> bool:
        """Ask the service which bundle is in force.

        Args:
            wait_seconds: How long it may wait for another one.

        Returns:
            Whether it holds such questions, so that the next may follow at once.
        """
        self._asked += 1
        question = self._asked
        answer = await self._source.fetch(self.revision, wait_seconds=wait_seconds)
        if question < self._answered:  # a later question was answered first: this answer may be out of date
            return False
        if isinstance(answer, Unavailable):
            _LOG.warning("bundle_unavailable", reason=answer.reason)
            return False
        self._answered = question
        self._on_canary(None if isinstance(answer, NoBundle) else answer.canary)
        if isinstance(answer, UnchangedBundle):
            self._confirm()
        elif isinstance(answer, NoBundle):
            self._withdraw()
        else:
            await self._adopt(answer, question)
        return isinstance(answer, ActiveBundle | UnchangedBundle) and answer.may_ask_again

    async def _is_trusted(self, bundle: Bundle) -> bool:
        """Fetch and check a bundle's signature, and keep it for the next start."""
        if not self._trusted:
            return True
        answer = await self._source.signature(bundle.revision)
        if isinstance(answer, Unavailable):
            _LOG.error("bundle_unsigned", revision=bundle.revision, reason=answer.reason)
            return False
        try:
            verify_signature(answer, bundle, self._trusted)
        except (MalformedError, VerificationError) as error:
            _LOG.error("bundle_signature_refused", revision=bundle.revision, error=type(error).__name__)
            return False
        self._write(_SIGNATURE, answer)
        return True

    async def _adopt(self, answer: ActiveBundle, question: int) -> None:
        try:
            bundle = parse_archive(answer.archive)
        except PolicySyntaxError:
            _LOG.error("bundle_unreadable", revision=answer.revision)
            return
        if bundle.revision != answer.revision:
            _LOG.error("bundle_digest_mismatch", expected=answer.revision, actual=bundle.revision)
            return
        another = bundle.revision != self.revision
        if another and not await self._is_trusted(bundle):
            return
        if another:
            await self._get_ready(bundle)
            if question < self._answered:  # meanwhile the service has said something else
                return
            _LOG.info("bundle_adopted", revision=bundle.revision, previous=self.revision)
            self._write(_ARCHIVE, answer.archive)
            self._saved_ms = 0
        self._bundle = bundle
        self._confirm()
        if another:
            self._on_adopted()

    async def _get_ready(self, bundle: Bundle) -> None:
        """Have decisions of a bundle prepared; one that cannot be, or takes long, decides all the same, or denies."""
        if not isinstance(self._evaluator, Preparing):
            return
        try:
            async with asyncio.timeout(_PREPARE_SECONDS):
                await self._evaluator.prepare(bundle)
        except Exception as error:  # noqa: BLE001  # whatever it is, each decision says so
            _LOG.warning("bundle_not_prepared", revision=bundle.revision, error=type(error).__name__)

    def _withdraw(self) -> None:
        """The service says that nothing is in force: then nothing decides, after a restart neither."""
        if self._bundle is not None:
            _LOG.warning("bundle_withdrawn", revision=self.revision)
        self._bundle = None
        for name in (_CONFIRMED, _ARCHIVE, _SIGNATURE):
            (self._directory / name).unlink(missing_ok=True)

    def _confirm(self) -> None:
        self._note(self._clock.now_ms())

    def _note(self, confirmed_ms: int) -> None:
        """Note when the bundle was confirmed; on disk that may stand earlier than it was, and never later."""
        assert self._bundle is not None
        self._confirmed_ms = confirmed_ms
        if self._saved_ms == 0 or not 0 <= confirmed_ms - self._saved_ms < _SAVE_EVERY_MS:
            note = {"revision": self._bundle.revision, "confirmed_ms": confirmed_ms}
            self._write(_CONFIRMED, canonical_bytes(note))
            self._saved_ms = confirmed_ms

    def _write(self, name: str, data: bytes) -> None:
        try:
            replace_durably(self._directory / name, data, mode=0o600)
        except OSError as error:
            # What is in memory is sound; only a restart without the service would have to do without it.
            _LOG.error("bundle_not_kept", file=name, error=type(error).__name__)

    def _load(self) -> None:
        try:
            archive = (self._directory / _ARCHIVE).read_bytes()
            note = parse_json((self._directory / _CONFIRMED).read_bytes())
            bundle = parse_archive(archive)
            if self._trusted:
                # Also one that was taken up before anybody had to sign.
                verify_signature((self._directory / _SIGNATURE).read_bytes(), bundle, self._trusted)
        except FileNotFoundError:
            return
        except (OSError, MalformedError, PolicySyntaxError, VerificationError) as error:
            _LOG.error("kept_bundle_unusable", error=type(error).__name__)
            return
        # A crash between the two writes leaves a newer archive than the note speaks of: it was not confirmed yet.
        if not isinstance(note, dict) or note.get("revision") != bundle.revision:
            _LOG.error("kept_bundle_unusable", error="not the confirmed revision")
            return
        confirmed = note.get("confirmed_ms")
        if isinstance(confirmed, int) and not isinstance(confirmed, bool):
            self._bundle, self._confirmed_ms, self._saved_ms = bundle, confirmed, confirmed

    async def _poll(self) -> None:
        pause = self._settings.poll_seconds
        # Never at once: a service that answers without holding, and says it had, would be asked without end.
        soon = min(_SOON_SECONDS, pause)
        held = True
        while True:
            await asyncio.sleep(soon if held else pause)
            try:
                held = await self.refresh(wait_seconds=self._settings.wait_seconds)
            except Exception as error:  # noqa: BLE001  # a fault here must not end the polling: the bundle ages and says so
                held = False
                _LOG.error("bundle_poll_failed", error=type(error).__name__)
