"""The page of one containment: where it is in force, how it ended, and commands that can be typed as they stand."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from ledger.containments import REVIEW_MS, Order
from ledger.restrictions import Restriction
from service.cli.main import cli
from service.reach import Gateway
from service.web.containment_page import ContainmentView, containment_view

NOW = 1_763_982_000_000
IDENT = "01990000-0000-7000-8000-000000000001"
ANN, EVE, JOE = "a" * 32, "e" * 32, "c" * 32

CONTAINED = Order(
    restriction=Restriction(
        restriction_id=IDENT, kind="containment", scope="agent", since_ms=NOW, until_ms=NOW + 3_600_000, agent="bot"
    ),
    leaf=4711,
    ordered_by=ANN,
    ordered_role="responder",
    ordered_key=None,
)
KILLED = Order(
    restriction=Restriction(
        restriction_id=IDENT, kind="kill", scope="principal", since_ms=NOW, until_ms=None, agent="bot", user=JOE
    ),
    leaf=4712,
    ordered_by="gateway-1",
    ordered_role="enforcer",
    ordered_key=None,
)
ASKED = replace(CONTAINED, requested_by=EVE)
RELEASED = replace(ASKED, ended="released", ended_ms=NOW + 60_000, ended_leaf=4800)
REVIEWED = replace(CONTAINED, reviewed_ms=NOW + 1, reviewed_by=EVE, verdict="justified")


def gateway(name: str, state: Any, seen_ms: int | None = None) -> Gateway:
    return Gateway(enforcer_id=name, state=state, version=None, seen_ms=seen_ms)


def view(order: Order, *gateways: Gateway, now_ms: int = NOW, may_end: bool = True) -> ContainmentView:
    return containment_view(order, gateways, now_ms, may_end=may_end)


def fields(shown: ContainmentView) -> dict[str, tuple[str, str]]:
    return {field.label: (field.value, field.note) for field in shown.fields}


def test_gateways_that_it_has_not_reached_come_first_and_are_counted():
    shown = view(
        CONTAINED,
        gateway("a", "reached", NOW),
        gateway("b", "unreached"),
        gateway("c", "stopped", NOW),
        gateway("d", "never_started"),
    )
    assert [(one.name, one.state, one.well) for one in shown.gateways] == [
        ("b", "Unreached", False),
        ("a", "In force", True),
        ("c", "Not running", True),
        ("d", "Never started", True),
    ]
    assert (shown.gateways[0].seen, shown.gateways[1].seen) == ("", "2025-11-24 11:00:00 UTC")
    assert shown.summary == "1 of 4 gateways unreached: calls may still pass there."
    assert not shown.well


def test_it_is_said_whether_it_is_in_force_everywhere_or_there_is_no_gateway():
    everywhere = view(CONTAINED, gateway("a", "reached"), gateway("b", "stopped"))
    assert (everywhere.well, everywhere.summary) == (True, "In force at every gateway that runs, of 2 gateways.")
    assert view(CONTAINED).summary == "No gateway is enrolled."


def test_what_has_ended_is_nowhere_in_force_and_waits_for_no_release():
    shown = view(RELEASED, gateway("a", "unreached"))
    assert (shown.in_force, shown.state, shown.until) == (False, "Released early", "since 2025-11-24 11:01:00 UTC")
    assert (shown.gateways, shown.summary, shown.row.release) == ((), "", "")
    assert fields(shown)["Ended"] == ("2025-11-24 11:01:00 UTC", "leaf 4,800")
    assert not any("release" in line for line, _ in shown.commands)
    over = view(replace(CONTAINED, ended="expired", ended_ms=NOW + 3_600_000))
    assert (over.state, "Release asked for by" in fields(over)) == ("Over", False)


def test_people_are_pseudonyms_and_a_kill_is_a_gateways():
    asked = view(ASKED)
    assert {field.label for field in asked.fields if field.kind == "pseudonym"} == {
        "Ordered by",
        "Release asked for by",
    }
    assert fields(asked)["Ordered by"] == (ANN, "responder")
    killed = fields(view(KILLED))
    assert killed["Killed at"] == ("gateway-1", "")
    assert not {"Ordered by", "Ordered until", "Review"} & set(killed)


def test_a_review_is_due_then_overdue_then_said():
    assert fields(view(CONTAINED))["Review"][0].startswith("due ")
    late = view(CONTAINED, now_ms=NOW + REVIEW_MS)
    assert (fields(late)["Review"], late.row.overdue) == (("overdue", ""), True)
    done = view(REVIEWED, now_ms=NOW + REVIEW_MS)
    assert (fields(done)["Reviewed"][1], fields(done)["Reviewed by"][0], done.row.overdue) == ("justified", EVE, False)
    assert "Review" not in fields(done)


@pytest.mark.parametrize("order", [CONTAINED, ASKED, RELEASED, KILLED, REVIEWED])
def test_the_command_line_takes_each_command_as_it_stands(order):
    commands = view(order).commands
    assert commands or order.ended is not None
    for line, _ in commands:
        program, *arguments = shlex.split(line)
        assert program == "tallystick"
        command: Any = cli
        while arguments and not arguments[0].startswith("-") and hasattr(command, "get_command"):
            command = command.get_command(
                command.make_context("tallystick", [], resilient_parsing=True), arguments.pop(0)
            )
        assert command.make_context(command.name, arguments).params["containment_id"] == IDENT


def test_each_step_is_offered_while_it_is_left_to_do_and_to_those_who_may_alone():
    steps = {
        name: [line.split()[2] for line, _ in view(order).commands]
        for name, order in (
            ("contained", CONTAINED),
            ("asked", ASKED),
            ("released", RELEASED),
            ("killed", KILLED),
            ("reviewed", REVIEWED),
        )
    }
    assert steps == {
        "contained": ["release", "review"],
        "asked": ["release", "review"],
        "released": ["review"],
        "killed": ["release"],
        "reviewed": ["release"],
    }
    assert view(ASKED).commands[0][1].startswith("Confirm")
    assert view(CONTAINED, may_end=False).commands == ()
