"""Tools' definitions follow from the log's records: seen by gateways, approved and rejected by people alone."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.bodies_tools import ToolEvent
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.tool_verdicts import ToolVerdicts, parse_tool_verdicts
from service.tool_book import MAX_STEPS, ToolBook
from tests.support.ledger import Enforcer

OLD, NEW, OTHER = "a0" * 32, "b0" * 32, "c0" * 32
SERVICE = "service"


class Log:
    """Writes tool records, and reads them into a book."""

    def __init__(self) -> None:
        self.writers = {name: Enforcer(name, seed=at) for at, name in enumerate((SERVICE, "gateway-1", "gateway-2"))}
        self.book = ToolBook(SERVICE)
        self.leaf = 0

    def say(self, action: Any, digest: str | None = None, *, by: str = "gateway-1", **members: Any) -> None:
        self.leaf += 1
        event = ToolEvent(action=action, server="crm", tool="refund", digest=digest, **members)
        self.book.take(self.leaf, self.writers[by].record(event))

    @property
    def state(self) -> tuple[str, str]:
        life = self.book.get("crm", "refund")
        return life.state, life.digest

    @property
    def handed_out(self) -> tuple[str, str, int] | None:
        one = self.book.verdicts.tools.get(("crm", "refund"))
        return None if one is None else (one.state, one.digest, one.leaf)


@pytest.fixture
def log() -> Log:
    return Log()


def test_what_was_seen_first_is_nobodys_word_and_is_handed_out_to_nobody(log):
    log.say("first_seen", OLD)
    assert (log.state, log.handed_out) == (("first_use", OLD), None)


def test_a_quarantine_of_one_gateway_is_handed_out_to_all(log):
    log.say("first_seen", OLD)
    log.say("quarantined", NEW, previous=OLD, reasons=("changed",), by="gateway-2")
    assert log.handed_out == ("quarantined", NEW, 2)
    life = log.book.get("crm", "refund")
    assert (life.waits(), life.standing) == (True, OLD)
    assert life.why().reasons == ("changed",)


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
def test_a_persons_word_is_the_services_alone(log, verdict):
    log.say("quarantined", NEW)
    log.say(verdict, NEW, by="gateway-1")
    assert log.state == ("quarantined", NEW)
    log.say(verdict, NEW, by=SERVICE)
    assert (log.state, log.handed_out) == ((verdict, NEW), (verdict, NEW, 3))


def test_what_a_gateway_sees_is_not_the_services_to_say(log):
    log.say("first_seen", OLD, by=SERVICE)
    with pytest.raises(NotFoundError):
        log.book.get("crm", "refund")


def test_a_verdict_on_what_nobody_saw_is_none(log):
    log.say("approved", NEW, by=SERVICE)
    assert log.book.all == []


def test_a_gateway_that_is_behind_begins_no_new_quarantine(log):
    log.say("quarantined", NEW)
    log.say("approved", NEW, by=SERVICE)
    log.say("quarantined", NEW, previous=OLD, by="gateway-2")
    assert log.handed_out == ("approved", NEW, 2)


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
@pytest.mark.parametrize("seen", [OTHER, None])
def test_a_word_that_comes_after_another_definition_was_seen_ends_no_quarantine(log, verdict, seen):
    log.say("first_seen", OLD)
    log.say("quarantined", NEW, previous=OLD)
    log.say("quarantined", seen, previous=OLD, by="gateway-2")
    log.say(verdict, NEW, by=SERVICE)
    assert log.handed_out == ("quarantined", seen or "", 3)
    life = log.book.get("crm", "refund")
    assert (life.waits(), life.standing) == (True, OLD)


@pytest.mark.parametrize("digest", [OLD, OTHER, None])
def test_another_definition_after_an_approval_is_a_new_quarantine(log, digest):
    log.say("quarantined", NEW)
    log.say("approved", NEW, by=SERVICE)
    log.say("quarantined", digest, previous=NEW, by="gateway-2")
    assert log.state == ("quarantined", digest or "")


def test_the_old_definition_shown_again_is_for_somebody_to_approve_anew(log):
    log.say("quarantined", NEW)
    log.say("approved", NEW, by=SERVICE)
    log.say("quarantined", OLD)
    log.say("changed", NEW)
    assert log.handed_out == ("quarantined", NEW, 4)


@pytest.mark.parametrize("action", ["first_seen", "vouched", "returned", "gone"])
def test_nothing_else_that_a_gateway_says_ends_a_quarantine(log, action):
    log.say("quarantined", NEW)
    log.say(action, NEW, by="gateway-2")
    assert log.handed_out == ("quarantined", NEW, 1)


def test_gone_and_back_are_told(log):
    log.say("first_seen", OLD)
    log.say("gone", OLD)
    assert log.book.get("crm", "refund").listed is False
    log.say("returned", OLD)
    assert log.book.get("crm", "refund").listed is True


def test_the_version_is_the_leaf_that_changed_the_set(log):
    log.say("quarantined", NEW)
    before = log.book.verdicts
    log.say("gone", NEW)
    assert log.book.verdicts is before
    log.say("approved", NEW, by=SERVICE)
    assert log.book.verdicts.version == 3


def test_only_the_latest_steps_are_kept(log):
    log.say("first_seen", OLD)
    for _ in range(MAX_STEPS):
        log.say("gone", OLD)
    steps = log.book.get("crm", "refund").steps
    assert len(steps) == MAX_STEPS
    assert steps[-1].leaf == MAX_STEPS + 1


@pytest.mark.parametrize("digest", [OLD, OTHER, ""])
def test_nobody_says_anything_of_a_definition_that_he_has_not_looked_at(log, digest):
    log.say("first_seen", OLD)
    log.say("quarantined", NEW)
    with pytest.raises(ConflictError, match="look at it again"):
        log.book.check("crm", "refund", digest, "approved")
    assert log.book.check("crm", "refund", NEW, "approved").digest == NEW


def test_what_stands_already_is_not_said_again(log):
    log.say("quarantined", NEW)
    log.say("approved", NEW, by=SERVICE)
    with pytest.raises(ConflictError, match="approved already"):
        log.book.check("crm", "refund", NEW, "approved")
    assert log.book.check("crm", "refund", NEW, "rejected").state == "approved"


def test_what_waits_comes_first():
    log = Log()
    log.say("quarantined", NEW)
    log.leaf = 9
    log.book.take(10, log.writers["gateway-1"].record(ToolEvent(action="first_seen", server="a", tool="b", digest=OLD)))
    assert [life.server for life in log.book.all] == ["crm", "a"]


# --- the document


def test_a_document_is_read_as_it_was_written(log):
    log.say("quarantined", NEW)
    assert parse_tool_verdicts(log.book.verdicts.document) == log.book.verdicts
    assert parse_tool_verdicts(ToolVerdicts().document) == ToolVerdicts()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"quarantined", b"pardoned"),
        (b"tallystick.tools/1", b"tallystick.tools/2"),
        (b'"leaf":1', b'"leaf":-1'),
        (b'"version":1', b'"version":-2'),
        (b'"crm"', b'"c r m"'),
        (NEW.encode(), b"b0"),
        (b'"version":1', b'"version": 1'),
        (b"}]", b'}],"more":[]'),
        (b"}", b""),
    ],
)
def test_another_document_is_malformed(log, old, new):
    log.say("quarantined", NEW)
    document = log.book.verdicts.document
    assert old in document
    with pytest.raises(MalformedError):
        parse_tool_verdicts(document.replace(old, new))
