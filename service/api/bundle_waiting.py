"""Asking for the active bundle, and waiting for another one: what our own enforcers and a stock OPA do alike."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from policies.bundle_lives import derive_state
from service.bundle_watch import MAX_WAIT_SECONDS
from service.wiring.services import Services

__all__ = ["ActiveRevision", "active_revision", "etag", "gone", "names_revision"]

_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*([0-9]{1,4})\s*(?=$|[,;])", re.IGNORECASE)
"""RFC 7240 section 4.3. OPA writes ``modes=snapshot,delta;wait=10``."""


@dataclass(frozen=True, slots=True)
class ActiveRevision:
    """Which bundle is active.

    Attributes:
        revision: None if none is.
        held: Such a request is held as long as there is no news, so that it may be asked again at once.
        canary: Which bundle is evaluated beside it, or None.
    """

    revision: str | None
    held: bool
    canary: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says of it."""
        tag = {} if self.revision is None else {"ETag": etag(self.revision)}
        applied = {"Preference-Applied": "wait"} if self.held else {}
        beside = {} if self.canary is None else {"Tallystick-Canary": self.canary}
        return {**tag, **applied, **beside, "Cache-Control": "private, no-cache"}


def etag(revision: str) -> str:
    """Return a bundle's entity tag."""
    return f'"{revision}"'


def names_revision(request: Request, revision: str | None) -> bool:
    """Whether a request says that it has that bundle already."""
    tags = request.headers.get("if-none-match", "")
    return revision is not None and etag(revision) in [item.strip() for item in tags.split(",")]


async def active_revision(services: Services, request: Request) -> ActiveRevision:
    """Return which bundle is active, and the canary; if the caller has it and asks to wait, once one of them changes.

    He asks so by ``Prefer: wait=N``.
    """
    wanted = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    seen, revision, canary = await _now(services)
    if wanted is None or not names_revision(request, revision):
        # Who has another bundle is answered at once, and may then ask to be held.
        return ActiveRevision(revision, held=wanted is not None, canary=canary)
    loop = asyncio.get_running_loop()
    until = loop.time() + min(int(wanted[1]), MAX_WAIT_SECONDS)
    held, before = True, canary
    # A step that changes nothing that is evaluated, such as a publication, is no news for enforcers.
    while held and names_revision(request, revision) and canary == before and (left := until - loop.time()) > 0:
        held = await services.bundle_watch.changed(seen, left, lambda: gone(request))
        seen, revision, canary = await _now(services)
    return ActiveRevision(revision, held=held, canary=canary)


async def _now(services: Services) -> tuple[int, str | None, str | None]:
    events = await services.bundles.history()
    state = derive_state(events)
    return (events[-1].leaf_index if events else -1), state.active, state.canary


async def gone(request: Request) -> None:
    """Return once whoever asked is not there any more; the body was read, so that nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
