"""What records say of the inventory: servers and their tools, who answers for them, which tags they have and why.

Pure. What the records of a log come to is `service.inventory_book`'s part.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ledger.body_fields import PUBLIC, Commitment, Count, Hex32, Name, Names, Pseudonym, Struct

__all__ = ["InventoryEvent"]


class InventoryEvent(Struct, frozen=True, tag_field="type", tag="inventory"):
    """A step in the life of a server or tool in the inventory, or the inventory itself as it was at a time.

    Enforcers say what their lists of servers say, and what the definitions of tools suggest; people confirm and reject
    tags, at the service. A tag is in force because an enforcer's list has it, and for no other reason.

    Attributes:
        action: registered, changed, removed: an enforcer's list of servers has the server or tool, has it otherwise, or
            has it no more; suggested: rules suggest these tags for a tool; confirmed, rejected: a person said so of
            these tags; pinned: what somebody saw at that time, by its digest.
        server: Which server; absent where a view is pinned.
        tool: Which of its tools; absent for the server itself. What is no name stands by its SHA-256.
        owner: The person or team that answers for the server, by the list; absent if nobody does.
        tags: The tags that it is about: those of the list, of a tool those that it has beside its server's; those that
            are suggested; or those that somebody spoke of.
        rules: Of a suggestion: which rule suggests which tag, ``tag:rule``, sorted.
        disagreements: Of a suggestion: what the server says of the tool and its own definition gainsays, sorted.
        definition: SHA-256 over the canonical definition of the tool that this is said of.
        actor: Who confirmed, rejected or pinned.
        actor_role: Under which role.
        view: What was pinned.
        agent: Of pinned privileges: whose.
        digest: SHA-256 over the canonical JSON of what was pinned.
        size: The leaves that it was counted from are those below this index.
        items: How many lines it has.
        comment: Free text: why it was confirmed, rejected or pinned.
    """

    action: Annotated[
        Literal["registered", "changed", "removed", "suggested", "confirmed", "rejected", "pinned"],
        msgspec.Meta(extra=PUBLIC),
    ]
    server: Name | None = None
    tool: Name | None = None
    owner: Name | None = None
    tags: Names = ()
    rules: Names = ()
    disagreements: Names = ()
    definition: Hex32 | None = None
    actor: Pseudonym | None = None
    actor_role: Name | None = None
    view: Annotated[Literal["inventory", "privileges"] | None, msgspec.Meta(extra=PUBLIC)] = None
    agent: Name | None = None
    digest: Hex32 | None = None
    size: Count = 0
    items: Count = 0
    comment: Commitment | None = None
