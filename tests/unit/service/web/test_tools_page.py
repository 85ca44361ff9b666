"""The pages of tools: what is shown of a definition that others wrote, and when a person can say something of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enforcement.tool_changes import difference
from ledger.bodies import ToolEvent
from service.tool_book import ToolLife, ToolStep
from service.tools import Difference
from service.web.tools_page import ToolView, tool_path, tool_row, tool_view

NOW = 1_763_982_000_000
OLD, NEW = "a" * 64, "b" * 64
FOUND = Difference('{"name":"refund"}', '{"name":"refund","x":1}', (' "name": "refund",', '+  "x": 1'))


def step(leaf: int, action: str, **members: object) -> ToolStep:
    event = ToolEvent(action=action, server="crm", tool="refund", digest=NEW, **members)
    return ToolStep(leaf, f"record-{leaf}", NOW + leaf, "gateway-1", event)


SEEN = step(1, "first_seen")
STOPPED = step(2, "quarantined", previous=OLD, reasons=("changed",), changes=("destination",), other="mail/send")
LIFE = ToolLife(
    server="crm",
    tool="refund",
    state="quarantined",
    digest=NEW,
    standing=OLD,
    listed=True,
    leaf=2,
    steps=(SEEN, STOPPED),
)


def view(life: ToolLife = LIFE, found: Difference | None = FOUND, **may: bool) -> ToolView:
    return tool_view(life, **{"may_open": True, "may_decide": True, **may}, found=found)


def test_a_quarantined_tool_says_why_and_what_the_change_brings_in():
    row = tool_row(LIFE)
    assert (row.state, row.icon, row.other) == ("Quarantined", "trouble", "mail/send")
    assert row.reasons == ("its definition is another than stood",)
    assert row.changes == ("a destination that it did not name before",)
    assert row.link == "/tools/crm/refund"


def test_a_reason_that_this_release_has_no_words_for_is_told_as_it_is():
    stopped = step(2, "quarantined", reasons=("of_next_year",))
    assert tool_row(replace(LIFE, steps=(SEEN, stopped))).reasons == ("of_next_year",)


@pytest.mark.parametrize("state", ["approved", "rejected", "first_use"])
def test_what_is_not_quarantined_has_no_reasons(state):
    row = tool_row(replace(LIFE, state=state))
    assert (row.reasons, row.changes, row.other) == ((), (), "")


def test_history_is_newest_first_and_names_who_said_it():
    said = step(3, "approved", actor="c" * 32, actor_role="approver")
    shown = view(replace(LIFE, steps=(SEEN, STOPPED, said)))
    assert [one.what for one in shown.steps] == ["Approved", "Quarantined", "Seen for the first time"]
    assert [one.who for one in shown.steps] == [f"{'c' * 32} (approver)", "gateway-1", "gateway-1"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("refund", "/tools/crm/refund"),
        ("a/../../packs", "/tools/crm/a%2F..%2F..%2Fpacks"),
        ("x/verdict", "/tools/crm/x%2Fverdict"),
        ("a?b#c", "/tools/crm/a%3Fb%23c"),
    ],
)
def test_a_tools_name_leads_to_its_page_and_nowhere_else(name, path):
    assert tool_path("crm", name) == path


@pytest.mark.parametrize("server", ["https://evil.example/x", "a:b", "a" * 65])
def test_a_server_with_a_name_that_no_page_has_is_text(server):
    assert tool_row(replace(LIFE, server=server)).link == ""


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Pay\u200bback", "Pay\u27e8U+200B ZERO WIDTH SPACE\u27e9back"),
        ("safe\u202etxt", "safe\u27e8U+202E RIGHT-TO-LEFT OVERRIDE\u27e9txt"),
        ("\U000e0041", "\u27e8U+E0041 TAG LATIN CAPITAL LETTER A\u27e9"),
        ("r\u0435fund", "r\u2039U+0435\u203afund"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a\x1b[2Jb", "a\\u001b[2Jb"),
    ],
)
def test_nothing_in_a_definition_is_unseen_or_taken_for_something_else(text, seen):
    lines = difference("", '{"description":' + _quoted(text) + "}")
    (line,) = (one.text for one in view(found=Difference(None, "x", tuple(lines))).lines if "description" in one.text)
    assert seen in str(line)


def _quoted(text: str) -> str:
    return '"' + text.replace("\x1b", "\\u001b") + '"'


def test_a_long_line_is_not_cut():
    line = "+" + "x" * 100_000
    assert view(found=Difference(None, "x", (line,))).lines[0].text == line


def test_a_line_is_told_by_its_sign():
    lines = ("@@ -1 +1 @@", "-old", "+new", " same", "")
    shown = view(found=Difference("o", "n", lines))
    assert [one.kind for one in shown.lines] == ["place", "removed", "added", "same", "same"]


def test_a_verdict_is_about_the_definition_that_was_shown():
    assert view(found=None).digest == ""
    assert not view(found=None).opened
    assert view().digest == NEW


def test_nobody_says_anything_of_a_definition_that_could_not_be_shown():
    shown = view(found=Difference(None, None, ()))
    assert (shown.opened, shown.digest) == (True, "")
    assert "nobody can look at it" in shown.compared
    assert not view(replace(LIFE, digest="")).may_decide


@pytest.mark.parametrize(
    ("state", "approve", "reject"),
    [("quarantined", True, True), ("approved", False, True), ("rejected", True, False), ("first_use", True, True)],
)
def test_what_stands_already_is_not_offered_again(state, approve, reject):
    shown = view(replace(LIFE, state=state))
    assert (shown.approvable, shown.rejectable) == (approve, reject)


def test_who_may_not_is_offered_nothing():
    shown = view(may_open=True, may_decide=False)
    assert (shown.may_open, shown.may_decide) == (True, False)


@pytest.mark.parametrize(
    ("life", "found", "says"),
    [
        (LIFE, FOUND, "a plus are new"),
        (replace(LIFE, standing=""), replace(FOUND, before=None), "No definition stood before"),
        (replace(LIFE, standing=NEW), replace(FOUND, before=None), "This definition stands"),
        (LIFE, replace(FOUND, before=None), "What stood before is not in the vault any more"),
    ],
)
def test_it_is_said_what_is_compared_with_what(life, found, says):
    assert says in view(life, found).compared
