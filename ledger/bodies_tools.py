"""What records say of tools: which definitions servers showed, which of them stand, and who said so.

Pure. The other bodies are in `bodies`, the field types in `body_fields`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from ledger.body_fields import PUBLIC, Commitment, Hex32, Name, Names, Pseudonym, Struct

__all__ = ["ToolAction", "ToolEvent"]

ToolAction: TypeAlias = Annotated[
    Literal["first_seen", "changed", "quarantined", "vouched", "returned", "gone", "approved", "rejected"],
    msgspec.Meta(extra=PUBLIC),
]


class ToolEvent(Struct, frozen=True, tag_field="type", tag="tool"):
    """A step in the life of a tool's definition: what a server showed, as an enforcer saw it, or what a person said.

    Attributes:
        action: ``first_seen``: nobody knew it before, and nothing stands against it; ``quarantined``: it may be neither
            listed nor called; ``changed``: a quarantined one shows yet another definition; ``vouched``: a signed
            manifest names a quarantined one's definition; ``gone``: the server lists it no more; ``returned``: it does
            again; ``approved`` or ``rejected`` by a person.
        server: Which server.
        tool: Which tool. What is no name is given by its digest.
        digest: SHA-256 over the definition's canonical JSON, without the member ``contentHash``; of ``gone``, the last.
        previous: Digest of the definition that stood before.
        reasons: Why it is quarantined, sorted: ``changed``, ``look_alike``, ``invisible``, ``renamed``, ``shadows``,
            ``mentions``, ``ambiguous``, ``unreadable``, ``hash_mismatch``, ``unlisted``, ``rejected``.
        changes: What another definition brought in, sorted: ``destination``, ``instruction``, ``other_tool``,
            ``schema``, ``hint``, ``text``, ``label``.
        other: The tool that it resembles, speaks about or was before, as ``server/tool``.
        definition: The definition, canonical JSON, or as received where there is no such form.
        actor: Who approved or rejected it.
        actor_role: Under which role.
        comment: Free text of the actor.
    """

    action: ToolAction
    server: Name
    tool: Name
    digest: Hex32 | None = None
    previous: Hex32 | None = None
    reasons: Names = ()
    changes: Names = ()
    other: Name | None = None
    definition: Commitment | None = None
    actor: Pseudonym | None = None
    actor_role: Name | None = None
    comment: Commitment | None = None
