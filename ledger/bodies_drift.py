"""What records say of behaviour: the life of a baseline, and of a departure from one.

Pure. What an agent usually does is learned at an enforcer (`enforcement.profiles`); what is found stands in the log,
and what people make of it beside it. Numbers that are no whole ones stand in thousandths.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ledger.body_fields import PUBLIC, Commitment, Count, Hex32, Name, Names, Pseudonym, Struct, Uuid

__all__ = ["BaselineEvent", "Drift"]


class BaselineEvent(Struct, frozen=True, tag_field="type", tag="baseline"):
    """A step in the life of what is known of an agent's behaviour at one enforcer.

    Attributes:
        action: What an enforcer says of itself: learning (the first call), progress, ready (frozen), offered (a
            candidate that a person may accept), accepted, reset. What a person orders: accept_ordered, reset_ordered.
        agent: Whose behaviour.
        baseline_version: Of the baseline in force; absent before there is one.
        calls: Calls that were learned from, of the baseline or candidate that the step is about.
        days: Local days on which they were made.
        needed_calls: How many more are needed.
        needed_days: On how many more days.
        since_ms: First of these calls, POSIX milliseconds.
        until_ms: Last of them.
        longest_gap_ms: Longest time between two of them.
        tools: How many tools they were of.
        added: Tools of a candidate that the baseline does not have, sorted; the first of them.
        blind: What it cannot tell, sorted.
        thresholds: Digest of the numbers that it is used with.
        digest: Of a candidate, and of an order to accept it: SHA-256 over what it counted.
        enforcer: Of an order: whose baseline.
        order_id: Of what was done by order: record id of the order.
        actor: Of an order: who gave it.
        actor_role: Under which role.
        comment: Free text of the actor.
    """

    action: Annotated[
        Literal["learning", "progress", "ready", "offered", "accepted", "reset", "accept_ordered", "reset_ordered"],
        msgspec.Meta(extra=PUBLIC),
    ]
    agent: Name
    baseline_version: Count = 0
    calls: Count = 0
    days: Count = 0
    needed_calls: Count = 0
    needed_days: Count = 0
    since_ms: Count = 0
    until_ms: Count = 0
    longest_gap_ms: Count = 0
    tools: Count = 0
    added: Names = ()
    blind: Names = ()
    thresholds: Hex32 | None = None
    digest: Hex32 | None = None
    enforcer: Name | None = None
    order_id: Uuid | None = None
    actor: Pseudonym | None = None
    actor_role: Name | None = None
    comment: Commitment | None = None


class Drift(Struct, frozen=True, tag_field="type", tag="drift"):
    """A step in the life of a departure: an enforcer flagged it, a person saw it, a person closed it.

    Attributes:
        action: The step.
        drift_id: One id for the steps of one departure.
        agent: Of a flag: whose behaviour.
        detector: Which detector found it.
        subject: What it is about: a tool, a server; absent for all that the agent does.
        previous: Of a transition or a chain: the tool before.
        baseline_version: The baseline that it departs from; absent for a departure from a declared job.
        since_ms: First call of the baseline, POSIX milliseconds.
        until_ms: Last call of it.
        thresholds: Digest of all the numbers that count.
        value_milli: What was measured, in thousandths.
        threshold_milli: Above which that departs, in thousandths.
        calls: How many calls it rests on.
        decisions: Record ids of the latest of them.
        explained: What changed besides, and may be why; absent if nothing is known.
        explained_by: The new bundle revision or definition digest.
        unflagged: Departures before it that were too many to be flagged.
        actor: Of what a person did: who.
        actor_role: Under which role.
        disposition: Of a closing: what it was.
        comment: Free text of the actor.
    """

    action: Annotated[Literal["flagged", "acknowledged", "closed"], msgspec.Meta(extra=PUBLIC)]
    drift_id: Uuid
    agent: Name | None = None
    detector: Name | None = None
    subject: Name | None = None
    previous: Name | None = None
    baseline_version: Count = 0
    since_ms: Count = 0
    until_ms: Count = 0
    thresholds: Hex32 | None = None
    value_milli: Count = 0
    threshold_milli: Count = 0
    calls: Count = 0
    decisions: Annotated[tuple[Uuid, ...], msgspec.Meta(max_length=16)] = ()
    explained: Annotated[Literal["bundle", "tool_definition"] | None, msgspec.Meta(extra=PUBLIC)] = None
    explained_by: Hex32 | None = None
    unflagged: Count = 0
    actor: Pseudonym | None = None
    actor_role: Name | None = None
    disposition: Annotated[
        Literal["expected", "harmless", "misuse", "compromise", "false_alarm"] | None, msgspec.Meta(extra=PUBLIC)
    ] = None
    comment: Commitment | None = None
