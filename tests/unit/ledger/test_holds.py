"""Legal holds follow from the log's records, and end with the word of two people."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from ledger.bodies import HoldEvent
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.holds import HoldBook, check_hold
from tests.support.ledger import NOW_MS, Enforcer, make_decision

USER, SESSION, OTHER = "6" * 32, "5" * 32, "7" * 32
ANNA, BEN, CLEO = "a" * 32, "b" * 32, "c" * 32
HOLD = "01990000-0000-7000-8000-00000000000a"
SECOND = "01990000-0000-7000-8000-00000000000b"
OLD_KEY, NEW_KEY = "0" * 16, "1" * 16


@pytest.fixture
def writer() -> Enforcer:
    return Enforcer()


def event(action: str, actor: str = ANNA, hold_id: str = HOLD, **scope: object) -> HoldEvent:
    return HoldEvent(action=action, hold_id=hold_id, actor=actor, actor_role="admin", **scope)


def book_of(writer: Enforcer, *events: HoldEvent) -> HoldBook:
    return HoldBook((index, writer.record(body)) for index, body in enumerate(events))


def placed(**scope: object) -> HoldEvent:
    return event("placed", **({"subject": USER} | scope))


# --- what is covered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        ({"subject": USER}, True),
        ({"subject": OTHER}, False),
        ({"subject": SESSION}, True),
        ({"session": SESSION}, True),
        ({"session": OTHER}, False),
        ({"subject": USER, "session": SESSION}, True),
        ({"subject": USER, "session": OTHER}, False),
        ({"from_ms": NOW_MS}, True),
        ({"from_ms": NOW_MS + 10}, False),
        ({"to_ms": NOW_MS + 10}, True),
        ({"to_ms": NOW_MS + 1}, False),
        ({"from_ms": NOW_MS + 1, "to_ms": NOW_MS + 2}, True),
        ({"subject": USER, "from_ms": NOW_MS + 10}, False),
        ({"subject": OTHER, "from_ms": NOW_MS}, False),
        ({"subject": OTHER, "also": (USER,)}, True),
        ({"subject": USER, "also": (OTHER,)}, True),
        ({"subject": OTHER, "also": (USER,), "session": OTHER}, False),
    ],
)
def test_a_hold_covers_what_all_of_it_fits(writer, scope, covered):
    record = writer.record(make_decision(user=USER, session=SESSION)[0])
    assert record.time_ms == NOW_MS + 1
    book = book_of(Enforcer(), event("placed", **scope))
    assert bool(book.covering(record)) is covered


def test_a_hold_without_any_scope_holds_everything_should_one_ever_stand_in_the_log(writer):
    assert book_of(Enforcer(), event("placed")).covering(writer.record(writer.heartbeat()))


@pytest.mark.parametrize("scope", [{}, {"from_ms": 5, "to_ms": 5}, {"from_ms": 6, "to_ms": 5}])
def test_a_hold_that_names_nothing_is_not_placed(scope):
    with pytest.raises(MalformedError):
        check_hold(event("placed", **scope))


@pytest.mark.parametrize("scope", [{"subject": USER}, {"session": SESSION}, {"from_ms": 0}, {"from_ms": 5, "to_ms": 6}])
def test_a_hold_that_names_something_may_be_placed(scope):
    check_hold(event("placed", **scope))


# --- two people ------------------------------------------------------------------------------------------------------


def test_a_hold_is_in_force_until_a_second_person_confirms_its_release(writer):
    steps = [placed(), event("release_requested", ANNA), event("released", BEN)]
    in_force = [bool(book_of(writer, *steps[:end]).in_force) for end in range(len(steps) + 1)]
    assert in_force == [False, True, True, False]


@pytest.mark.parametrize(
    "steps",
    [
        [event("released", BEN)],
        [event("released", BEN), event("released", CLEO)],
        [event("release_requested", ANNA), event("released", ANNA)],
        [event("release_requested", ANNA), event("release_requested", BEN), event("released", ANNA)],
        [event("release_requested", ANNA, SECOND), event("released", BEN)],
        [event("release_requested", ANNA), event("released", BEN, SECOND)],
    ],
    ids=["alone", "twice without asking", "the same", "asked again by another", "asked for another", "other hold"],
)
def test_no_hold_ends_by_one_persons_word(writer, steps):
    assert [hold.hold_id for hold in book_of(writer, placed(), *steps).in_force] == [HOLD]


def test_a_release_that_stands_before_the_hold_releases_nothing(writer):
    steps = (event("release_requested", ANNA), event("released", BEN), placed())
    assert book_of(writer, *steps).in_force


def test_in_every_order_of_the_steps_only_the_lawful_one_releases(writer):
    steps = [placed(), event("release_requested", ANNA), event("released", BEN)]
    ended = [order for order in itertools.permutations(steps) if not book_of(writer, *order).in_force]
    assert ended == [tuple(steps)]


def test_a_second_hold_of_one_id_neither_narrows_nor_revives_the_first(writer):
    narrowed = book_of(writer, placed(), placed(subject=OTHER))
    assert [hold.subject for hold in narrowed.in_force] == [USER]
    release = (event("release_requested", ANNA), event("released", BEN))
    assert book_of(writer, placed(), *release, placed()).in_force == []


def test_the_next_step_is_for_another_person(writer):
    book = book_of(writer, placed())
    assert book.next_step(HOLD, ANNA, None) == "release_requested"
    asked = book_of(writer, placed(), event("release_requested", ANNA))
    assert asked.next_step(HOLD, BEN, None) == "released"
    with pytest.raises(ConflictError):
        asked.next_step(HOLD, ANNA, None)
    with pytest.raises(NotFoundError):
        asked.next_step(SECOND, BEN, None)


# Two pseudonyms tell two people apart only if one key made both: under a new key everybody has another one.


def under_keys(writer: Enforcer, *steps: tuple[str | None, HoldEvent]) -> HoldBook:
    return HoldBook(
        (index, msgspec.structs.replace(writer.record(body), pseudonym_key_id=key))
        for index, (key, body) in enumerate(steps)
    )


def test_nobody_confirms_his_own_request_under_the_pseudonym_of_another_key(writer):
    asked = under_keys(writer, (OLD_KEY, placed()), (OLD_KEY, event("release_requested", ANNA)))
    assert asked.next_step(HOLD, BEN, NEW_KEY) == "release_requested"
    steps = ((OLD_KEY, placed()), (OLD_KEY, event("release_requested", ANNA)), (NEW_KEY, event("released", BEN)))
    assert under_keys(writer, *steps).in_force


def test_a_release_is_asked_for_anew_under_another_key(writer):
    steps = [
        (OLD_KEY, placed()),
        (OLD_KEY, event("release_requested", ANNA)),
        (NEW_KEY, event("release_requested", BEN)),
    ]
    (hold,) = under_keys(writer, *steps).in_force
    assert hold.requested_by == BEN
    assert under_keys(writer, *steps, (NEW_KEY, event("released", BEN))).in_force
    assert under_keys(writer, *steps, (OLD_KEY, event("released", CLEO))).in_force
    assert under_keys(writer, *steps, (NEW_KEY, event("released", CLEO))).in_force == []


def test_holds_are_listed_oldest_first_with_who_and_where(writer):
    book = book_of(writer, placed(hold_id=SECOND), placed(session=SESSION), event("release_requested", CLEO))
    assert [(hold.hold_id, hold.placed_leaf, hold.requested_by) for hold in book.in_force] == [
        (SECOND, 0, None),
        (HOLD, 1, CLEO),
    ]
    assert [hold.hold_id for hold in book.of_subject(SESSION)] == [HOLD]


def test_since_when_there_was_a_hold_at_every_moment_is_known(writer):
    def release(hold_id: str) -> list[HoldEvent]:
        return [event("release_requested", ANNA, hold_id), event("released", BEN, hold_id)]

    both = [placed(), event("placed", ANNA, SECOND, subject=USER)]
    assert (book_of(writer).ever, book_of(writer).unbroken_since) == (False, None)
    assert book_of(writer, *both).unbroken_since == 0
    assert book_of(writer, *both, *release(HOLD)).unbroken_since == 0
    ended = book_of(writer, placed(), *release(HOLD))
    assert (ended.ever, ended.unbroken_since) == (True, None)
    assert book_of(writer, placed(), *release(HOLD), event("placed", ANNA, SECOND, subject=USER)).unbroken_since == 3


def test_other_records_change_nothing(writer):
    assert HoldBook([(0, writer.record(writer.heartbeat()))]).in_force == []
