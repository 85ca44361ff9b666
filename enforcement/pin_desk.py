"""What the operator of one gateway sees and says of its tools, beside the process that runs.

Where a service hands out what people said, its word counts besides: a quarantine that it knows of ends there alone.
"""

from __future__ import annotations

import secrets
from typing import Literal

from enforcement.batches import Batch, Item
from enforcement.core import Core
from enforcement.facts import Pseudonyms
from enforcement.modes import recorded_tool
from enforcement.pin_rules import Pin
from enforcement.pin_store import PinStore, said_of
from ledger.bodies_tools import ToolEvent
from ledger.commitments import SALT_BYTES, pseudonym
from ledger.errors import LedgerError
from ledger.ports import Draft, commit

__all__ = ["pins_of", "say_of_tool"]


def pins_of(core: Core) -> dict[str, dict[str, Pin]]:
    """Return what a gateway knows of tools, by server and name; it need not run, and may.

    Raises:
        ConfigError: The state directory belongs to another enforcer.
        StorageError: The state file failed.
    """
    with core.beside() as (state, _):
        return PinStore(state).read()


def say_of_tool(
    core: Core,
    server: str,
    tool: str,
    *,
    digest: str,
    verdict: Literal["approved", "rejected"],
    actor: str,
    comment: str,
    pseudonyms: Pseudonyms,
) -> None:
    """Record what the operator says of a definition; a gateway that runs takes it up within its ``poll_seconds``.

    Args:
        core: The gateway; it need not run, and may.
        server: The tool's server.
        tool: Its name.
        digest: Of the definition that he has looked at.
        verdict: What he says.
        actor: Who he is.
        comment: Why.
        pseudonyms: Name him.

    Raises:
        NotFoundError: The gateway knows no such tool.
        ConflictError: Another definition is listed by now, or it is approved already.
        ConfigError: The state directory belongs to another enforcer.
        LedgerError: It could not be recorded; nothing changed.
    """
    with core.beside() as (state, spool):
        pin, change = said_of(PinStore(state), server, tool, digest, verdict, core.clock.now_ms())
        committed, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
        event = ToolEvent(
            action=verdict,
            server=server,
            tool=recorded_tool(tool) or "",
            digest=digest,
            previous=pin.digest or None,
            actor=pseudonym(pseudonyms.key, "actor", actor),
            actor_role="operator",
            comment=committed,
        )
        item = Item(spool.new_record_id(), Draft(body=event, openings=(opening,)))
        (result,) = spool.append([Batch(items=(item,), changes=(change,))])
        if isinstance(result, LedgerError):
            raise result
