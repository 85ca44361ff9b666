"""What a list of servers would change of what is enforced, and what of it waits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from enforcement.config import ServerSettings, ToolSettings
from enforcement.modes import (
    ApprovedMode,
    ModeChange,
    changes_between,
    declared_modes,
    kept_enforced,
    recorded_tool,
)


def server(name: str = "finance", mode: Any = "enforce", **tools: Any) -> ServerSettings:
    entries = tuple(ToolSettings(name=tool, mode=value) for tool, value in tools.items())
    return ServerSettings(name=name, url="http://127.0.0.1:1/mcp", mode=mode, tools=entries)


def effective(servers: tuple[ServerSettings, ...], tool: str) -> str:
    modes = declared_modes(servers)
    return modes.get(("finance", tool), modes["finance", None])


def test_a_new_server_that_is_enforced_is_a_change_that_is_no_record() -> None:
    (change,) = changes_between({}, [server()])
    assert (change.previous, change.mode, change.loosens, change.recorded) == (None, "enforce", False, False)


def test_a_new_server_that_is_observed_is_recorded_and_waits_for_nobody() -> None:
    (change,) = changes_between({}, [server(mode="observe")])
    assert (change.previous, change.mode, change.loosens, change.recorded) == (None, "observe", False, True)


def test_what_is_as_it_was_is_no_change() -> None:
    servers = [server(mode="observe", pay="enforce")]
    assert changes_between(declared_modes(servers), servers) == []


def test_enforcing_what_was_observed_is_recorded_and_loosens_nothing() -> None:
    (change,) = changes_between({("finance", None): "observe"}, [server()])
    assert (change.previous, change.mode, change.loosens) == ("observe", "enforce", False)


def test_observing_what_was_enforced_loosens() -> None:
    (change,) = changes_between({("finance", None): "enforce"}, [server(mode="observe")])
    assert change.loosens


def test_a_tool_that_loses_its_own_entry_loosens_as_much_as_one_that_is_set_to_observe() -> None:
    held = {("finance", None): "observe", ("finance", "pay"): "enforce"}
    (change,) = changes_between(held, [server(mode="observe")])  # type: ignore[arg-type]
    assert (change.tool, change.loosens) == ("pay", True)
    assert effective(kept_enforced([server(mode="observe")], [change]), "pay") == "enforce"


def test_a_server_that_was_taken_off_the_list_comes_back_as_it_was() -> None:
    held = {("finance", None): "enforce", ("tickets", None): "enforce"}
    (change,) = changes_between(held, [server("tickets"), server(mode="observe")])  # type: ignore[arg-type]
    assert (change.server, change.loosens) == ("finance", True)


def test_a_tool_named_beside_its_server_changes_with_it_and_stays_enforced_with_it() -> None:
    wanted = [server(mode="observe", pay="observe")]
    (change,) = changes_between({("finance", None): "enforce"}, wanted)
    assert (change.tool, change.covered) == (None, ("pay",))
    assert effective(kept_enforced(wanted, [change]), "pay") == "enforce"


@pytest.mark.parametrize(
    ("tool", "named"),
    [
        ("pay", "pay"),
        (None, None),
        ("pay out", "sha256:"),
        ("", "sha256:"),
        ("zahlen-ü", "sha256:"),
        ("\ud800", "sha256:"),
    ],
)
def test_a_tool_is_recorded_by_its_name_or_by_the_digest_of_what_is_no_name(
    tool: str | None, named: str | None
) -> None:
    found = recorded_tool(tool)
    assert found == named if named in (tool, None) else str(found).startswith("sha256:")


@pytest.mark.parametrize(
    "other",
    [{"server": "tickets"}, {"tool": "pay"}, {"mode": "enforce"}],
)
def test_an_approval_is_of_one_change_and_of_no_other(other: dict[str, Any]) -> None:
    change = ModeChange(server="finance", tool=None, mode="observe", previous="enforce")
    approval: dict[str, Any] = {"change_id": "c", "server": "finance", "tool": None, "mode": "observe"}
    assert ApprovedMode(**approval).allows(change)
    assert not ApprovedMode(**approval | other).allows(change)


def test_whatever_is_not_approved_nothing_that_was_enforced_is_observed() -> None:
    """Every pair of lists over one server and two tools, with every subset of the changes kept back."""
    modes: tuple[Any, ...] = (None, "enforce", "observe")
    lists = [
        server(mode=whole, **{tool: mode for tool, mode in (("pay", pay), ("read", read)) if mode})
        for whole in modes[1:]
        for pay, read in itertools.product(modes, modes)
    ]
    tried = 0
    for before, after in itertools.product(lists, lists):
        held = declared_modes([before])
        changes = changes_between(held, [after])
        loosening = [change for change in changes if change.loosens]
        for count in range(len(loosening) + 1):
            for waiting in itertools.combinations(loosening, count):
                result = kept_enforced([after], waiting)
                again = changes_between(held, result)
                approved = {change.key for change in loosening if change not in waiting}
                # What the list that is taken up loosens was approved, by itself or with its server.
                for change in (one for one in again if one.loosens):
                    assert change.key in approved or ("finance", None) in approved
                for tool in ("pay", "read", "another"):
                    was = held.get(("finance", tool), held["finance", None])
                    if was == "enforce" and effective(result, tool) == "observe":
                        assert ("finance", tool) in approved or ("finance", None) in approved
                if not waiting:
                    assert declared_modes(result) == declared_modes([after])
                tried += 1
    assert tried > len(lists) ** 2
