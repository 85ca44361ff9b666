"""The calls that this gateway holds, and what people have said of them, as the service tells.

What is elsewhere: what is bound and who counts (`ledger.approvals`), the last check and the records
(`enforcement.holding`), what a waiting client hears (`enforcement.waiting`).

The service is asked only while something is held. It is believed as far as an attacker in its place could not do
better: the gateway counts the people itself, and only who has agreed to the very call that is held here.

INVARIANT: a grant of another binding counts for nothing, whoever hands it over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import structlog

from enforcement.config import GatewayConfig, ServerSettings
from enforcement.config_approvals import ApprovalSettings, HoldIrreversible
from enforcement.drafts import Case, Ruling
from enforcement.ports import ApprovalChannel, NewVerdicts, Unavailable
from enforcement.verdicts import Permitted
from ledger.approvals import Terms, Verdicts, VerdictSet, parse_verdicts
from ledger.errors import MalformedError
from ledger.tasks import end

__all__ = ["IRREVERSIBLE_TAG", "Approvals", "Held", "Rule", "approvals_of", "rule_of"]

_LOG: Final = structlog.get_logger(__name__)
_SOON_SECONDS: Final = 0.05
"""Between two questions that are held."""
_NO_VERSION: Final = -1
IRREVERSIBLE_TAG: Final = "irreversible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What holds for one tool.

    Attributes:
        expires_seconds: Its calls are held for so long.
        needed: So many people must agree.
        roles: Under one of these roles.
        irreversible: What becomes of a call that is tagged so, and merely permitted.
    """

    expires_seconds: float
    needed: int
    roles: tuple[str, ...]
    irreversible: HoldIrreversible


def rule_of(settings: ApprovalSettings, server: ServerSettings, name: str | None) -> Rule:
    """Return what holds for a call: as the tool's settings say, else the server's, else the gateway's."""
    own = next((tool.approvals for tool in server.tools if tool.name == name), None)
    found = [layer for layer in (own, server.approvals) if layer is not None]

    def first(member: str) -> object:
        said = (getattr(layer, member) for layer in found)
        return next((value for value in said if value is not None), getattr(settings, member))

    return Rule(**{member: first(member) for member in Rule.__slots__})  # type: ignore[arg-type]  # see the settings


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """A call that is held. Owned by the event loop.

    Attributes:
        terms: Under which terms.
        binding: What people agree to.
        case: What is known of it.
        ruling: What was decided.
        permitted: What goes on if enough agree.
        news: Set whenever something has changed.
        denied: Somebody has denied it.
        agreed: Who has agreed, with the key that made each pseudonym.
        mismatched: A grant of another binding was handed over.
        withdrawn: Why nobody waits for it any more, or None.
    """

    terms: Terms
    binding: str
    case: Case
    ruling: Ruling
    permitted: Permitted
    news: asyncio.Event = field(default_factory=asyncio.Event)
    denied: bool = False
    agreed: set[tuple[str, str | None]] = field(default_factory=set)
    mismatched: bool = False
    withdrawn: str | None = None

    @property
    def granted(self) -> bool:
        """Whether enough people have agreed; who cannot be told apart, because of another key, counts once."""
        if len({key_id for _, key_id in self.agreed}) > 1:
            return self.terms.needed == 1
        return len(self.agreed) >= self.terms.needed

    def hear(self, verdicts: Verdicts) -> None:
        """Take in what people have said."""
        if verdicts.decision_id != self.permitted.decision_id:
            self.mismatched = True
        else:
            self.denied = self.denied or verdicts.denied
            for grant in verdicts.grants:
                if grant.binding != self.binding:
                    self.mismatched = True
                elif not self.terms.roles or grant.role in self.terms.roles:
                    self.agreed.add((grant.actor, grant.key_id))
        self.news.set()

    def withdraw(self, reason: str) -> None:
        """Note that nobody waits for it any more; it is not forwarded from here on, whoever agrees."""
        if self.withdrawn is None:
            self.withdrawn = reason
        self.news.set()


class Approvals:
    """The held calls of one gateway. Owned by the event loop."""

    def __init__(self, settings: ApprovalSettings, channel: ApprovalChannel) -> None:
        """Take the parts.

        Args:
            settings: How often to ask, and how much may be held.
            channel: Hands out what people have said.
        """
        self.settings = settings
        self._channel = channel
        self._held: dict[str, Held] = {}
        self._reserved = 0
        self._version = _NO_VERSION
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return how many calls are held."""
        return len(self._held)

    def reserve(self) -> bool:
        """Take a place for a call that is about to be held; tell whether there was one. Give it back by `release`."""
        if len(self._held) + self._reserved >= self.settings.max_held:
            return False
        self._reserved += 1
        return True

    def release(self) -> None:
        """Give a place back."""
        self._reserved -= 1

    def add(self, held: Held) -> None:
        """Begin to ask about a call."""
        self._held[held.terms.approval_id] = held
        self._version = _NO_VERSION  # it may have been decided before it was known here that it is held
        self._some.set()

    def drop(self, held: Held) -> None:
        """Ask about a call no more."""
        self._held.pop(held.terms.approval_id, None)
        if not self._held:
            self._some.clear()

    def withdraw_all(self, reason: str) -> None:
        """End every wait."""
        for held in self._held.values():
            held.withdraw(reason)

    def start(self) -> None:
        """Begin to ask, whenever something is held."""
        self._task = asyncio.create_task(self._follow(), name="approvals")

    async def stop(self) -> None:
        """Ask no more."""
        await end(self._task)
        self._task = None

    async def refresh(self, *, wait_seconds: float = 0.0) -> bool:
        """Ask what people have said; tell whether the next question may follow at once."""
        asked = self._version
        answer = await self._channel.verdicts(asked, wait_seconds=wait_seconds)
        if isinstance(answer, Unavailable):
            _LOG.warning("verdicts_unavailable", reason=answer.reason)
            return False
        if not isinstance(answer, NewVerdicts):
            return answer.may_ask_again
        try:
            found = parse_verdicts(answer.document)
        except MalformedError:
            _LOG.error("verdicts_unreadable")
            return False
        self._take(found, asked)
        return True

    def _take(self, found: VerdictSet, asked: int) -> None:
        if self._version == asked:  # else something is held since: it is asked about anew
            self._version = found.version
        for verdicts in found.items:
            held = self._held.get(verdicts.approval_id)
            if held is not None:
                held.hear(verdicts)

    async def _follow(self) -> None:
        again = True
        while True:
            await self._some.wait()
            try:
                again = await self.refresh(wait_seconds=self.settings.wait_seconds if again else 0.0)
            except Exception as error:  # noqa: BLE001  # a fault here must not end it: calls expire meanwhile
                again = False
                _LOG.error("verdicts_not_followed", error=type(error).__name__)
            # Never at once: a service that answers without holding, and says it had, would be asked without end.
            await asyncio.sleep(_SOON_SECONDS if again else self.settings.poll_seconds)


def approvals_of(config: GatewayConfig, channel: object) -> Approvals | None:
    """Return what holds calls, if the configuration wants that and there is somebody to ask."""
    if config.approvals is None or not isinstance(channel, ApprovalChannel):
        return None
    return Approvals(config.approvals, channel)
