"""What comes in pieces down a stream is found all the same, redacted in each piece, and passes in its order."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.answer_inspection import AnswerInspection
from enforcement.mcp import Message, MessageLimits, parse_message
from enforcement.stream_inspection import MAX_HELD, MAX_HELD_BYTES, StreamInspection, both
from enforcement.verdicts import Permitted
from policies.signals import Signals
from tests.support.gateway import config_of
from tests.support.inspectors import DIGEST, KEY, ORDER, ThreeRules
from tests.support.mcp_messages import body_of, headers_of

PROGRESS = "notifications/progress"
LOG = "notifications/message"


def stream(directory: Path, obligations: tuple[str, ...] = (), *, mode: str = "enforce", **rules: Any) -> Any:
    config = config_of(directory, "http://127.0.0.1:1", "http://127.0.0.1:1", inspection=rules, server={"mode": mode})
    assert config.inspection is not None
    limits = MessageLimits(body_bytes=1 << 20, header_count=100, header_bytes=1 << 15)
    message = parse_message(
        body_of(), headers_of(), limits=limits, revisions=config.protocol.revisions, negotiated=None
    )
    assert isinstance(message, Message)
    permitted = Permitted(
        decision_id="d", message=message, server=config.servers[0], session="s", user=None, strict=False,
        obligations=frozenset(obligations),
    )  # fmt: skip
    return StreamInspection(AnswerInspection(ThreeRules(), config.inspection), permitted)


def progress(text: str, **more: Any) -> bytes:
    params = {"progressToken": 1, "progress": 0.5, "message": text, **more}
    return json.dumps({"jsonrpc": "2.0", "method": PROGRESS, "params": params}).encode()


def log(data: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": LOG, "params": {"level": "info", "data": data}}).encode()


def play(looking: Any, *messages: bytes) -> tuple[list[int], list[Any]]:
    """Return how many had passed after each, and what passed in the end: texts, or None."""

    async def run() -> tuple[list[int], list[Any]]:
        passed: list[Any] = []
        counts: list[int] = []
        for number, data in enumerate(messages):
            method = json.loads(data)["method"]
            passed += await looking.take(method, data, number)
            counts.append(len(passed))
        passed += looking.flush()
        assert [tag for _, tag in passed] == list(range(len(messages)))
        return counts, [None if data is None else json.loads(data)["params"] for data, _ in passed]

    return asyncio.run(run())


def texts(shown: list[Any]) -> str:
    return "".join(params.get("message", "") + str(params.get("data", "")) for params in shown if params is not None)


REDACT = {"acts": {"secret": "redact", "injection": "block"}}


@pytest.mark.parametrize("make", [progress, log])
@pytest.mark.parametrize("cuts", [(4,), (7,), (19,), (1,), (7, 12), (3, 6, 9, 12, 15), tuple(range(1, 20))])
def test_a_key_in_any_number_of_pieces_leaves_none_of_them_to_the_client(make: Any, cuts: tuple[int, ...], tmp_path):
    ends = [*cuts, len(KEY)]
    pieces = [KEY[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    looking = stream(tmp_path, **REDACT)
    _, shown = play(looking, make("the key is " + pieces[0]), *map(make, pieces[1:-1]), make(pieces[-1] + " so there"))
    together = texts(shown)
    assert KEY not in together
    assert all(KEY[start : start + 6] not in together for start in range(len(KEY) - 6))
    assert together.startswith("the key is ")
    assert together.endswith(" so there")
    assert looking.redacted > 0
    assert looking.signals.findings == ("secret/key",)
    assert looking.signals.inspector == DIGEST


def test_a_key_in_one_piece_is_redacted_and_nothing_waits_for_it(tmp_path):
    counts, shown = play(stream(tmp_path, **REDACT), progress(f"it is {KEY} ."), progress(" done."))
    assert counts == [1, 2]
    assert texts(shown) == "it is [redacted: secret] . done."


def test_plain_reports_of_progress_are_not_held_back(tmp_path):
    counts, shown = play(stream(tmp_path, **REDACT), *(progress(f"step {number}") for number in range(5)))
    assert counts == [1, 2, 3, 4, 5]
    assert texts(shown) == "step 0step 1step 2step 3step 4"


def test_what_may_go_on_waits_for_the_next_and_keeps_its_place(tmp_path):
    counts, shown = play(
        stream(tmp_path, **REDACT), progress("at AKIAQ7WZ"), log("other "), log("more "), progress(" and on")
    )
    assert counts == [0, 0, 0, 4]
    assert [params.get("message", params.get("data")) for params in shown] == [
        "at AKIAQ7WZ",
        "other ",
        "more ",
        " and on",
    ]


def test_texts_of_different_members_are_not_taken_for_one(tmp_path):
    _, shown = play(stream(tmp_path, **REDACT), progress(KEY[:9]), log(KEY[9:]))
    assert texts(shown) == KEY


def test_what_is_blocked_does_not_pass_and_the_rest_does(tmp_path):
    _, shown = play(stream(tmp_path, **REDACT), progress(f"now {ORDER}"), progress("fine"))
    assert shown[0] is None
    assert shown[1]["message"] == "fine"


@pytest.mark.parametrize(("rules", "passed"), [(REDACT, (2, 1)), ({}, (3, 1))])
def test_what_has_passed_is_counted_by_method_and_what_is_held_or_blocked_has_not(rules: Any, passed: Any, tmp_path):
    looking = stream(tmp_path, **rules)

    async def run() -> None:
        for number, data in enumerate((progress("a "), progress(f"now {ORDER}"), log("b "), progress("c AKIAQ7WZ"))):
            await looking.take(json.loads(data)["method"], data, number)

    asyncio.run(run())
    held = 1 if rules else 0
    assert (looking.let_go(PROGRESS), looking.let_go(LOG)) == (passed[0] - held, passed[1])
    looking.flush()
    assert (looking.let_go(PROGRESS), looking.let_go(LOG), looking.let_go("other")) == (*passed, 0)


def test_an_obligation_of_the_call_holds_for_its_stream(tmp_path):
    _, shown = play(stream(tmp_path, ("redact_result",)), progress(KEY[:9]), progress(KEY[9:]))
    assert texts(shown) == "[redacted: secret][redacted: secret]"


@pytest.mark.parametrize(("rules", "mode"), [({}, "enforce"), (REDACT, "observe")])
def test_where_nothing_is_withheld_nothing_waits_and_all_is_reported(rules: Any, mode: str, tmp_path):
    looking = stream(tmp_path, mode=mode, **rules)
    counts, shown = play(looking, progress(f"at {KEY}"), progress("AKIAQ7WZ"))
    assert counts == [1, 2]
    assert texts(shown) == f"at {KEY}AKIAQ7WZ"
    assert (looking.signals.findings, looking.redacted) == (("secret/key",), 0)


def test_without_inspection_everything_passes_as_it_came(tmp_path):
    other = stream(tmp_path)
    plain: StreamInspection[int] = StreamInspection(None, other._stream)
    counts, shown = play(plain, progress(KEY), log(ORDER))
    assert counts == [1, 2]
    assert KEY in texts(shown)
    assert plain.signals is None


def test_what_is_held_is_bounded_by_number_and_by_bytes(tmp_path):
    many = [progress("x" * 20) for _ in range(10 * MAX_HELD)]
    counts, _ = play(stream(tmp_path, **REDACT), *many)
    assert max(number + 1 - count for number, count in enumerate(counts)) <= MAX_HELD
    long = [progress("x" * (MAX_HELD_BYTES // 3)) for _ in range(12)]
    counts, _ = play(stream(tmp_path, **REDACT), *long)
    assert max(number + 1 - count for number, count in enumerate(counts)) <= 3


@pytest.mark.parametrize("filler", [10, 2_000, 4_200, 50_000])
def test_how_much_stands_around_a_seam_hides_nothing_that_reaches_over_it(filler: int, tmp_path):
    more = "so there. " * (filler // 10)
    for first, second in [("on ", " " + more), (more, " on"), (more, " " + more)]:
        looking = stream(tmp_path, **REDACT)
        _, shown = play(looking, progress(first + KEY[:9]), progress(KEY[9:] + second))
        assert texts(shown) == f"{first}[redacted: secret][redacted: secret]{second}"
        assert looking.redacted == 2


@pytest.mark.parametrize("escape", ["\n", "\u00e9", "\U0001f600", "\\", '"'])
def test_a_seam_is_found_behind_any_spelling(escape: str, tmp_path):
    for length in range(4_090, 4_104):
        _, shown = play(stream(tmp_path, **REDACT), progress(escape * length + KEY[:9]), progress(KEY[9:] + " ."))
        assert texts(shown).endswith("[redacted: secret][redacted: secret] .")


def test_a_small_limit_does_not_keep_pieces_from_being_looked_at_together(tmp_path):
    looking = stream(tmp_path, **REDACT, max_bytes=1024)
    _, shown = play(looking, progress("a " * 400 + KEY[:9]), progress(KEY[9:] + " b" * 400))
    assert shown[0] is None or shown[1] is None or KEY not in texts(shown)
    _, shown = play(stream(tmp_path, **REDACT, max_bytes=1024), progress("a " * 400), progress("b " * 400))
    assert None not in shown, "nothing stands over the seam"


def test_what_could_not_be_looked_at_together_does_not_pass(tmp_path):
    looking = stream(tmp_path, **REDACT)
    inspector = looking._inspection._inspector

    def fail() -> None:
        if len(inspector.looked) == 2:  # both are fine by themselves
            raise RuntimeError("out of order")

    inspector.before = fail
    _, shown = play(looking, progress(KEY[:9]), progress(KEY[9:]))
    assert KEY not in texts(shown)
    assert shown[1] is None
    assert looking.signals.inspected == "partial"
    _, shown = play(stream(tmp_path, **REDACT, partial="pass"), progress("one "), progress("two"))
    assert texts(shown) == "one two"


def test_more_members_than_are_followed_do_not_let_pieces_by(tmp_path):
    for count in (40, 400):
        many = {f"member-{number}": "of no use" for number in range(count)}
        _, shown = play(stream(tmp_path, **REDACT), log(many), log("fine "), progress(KEY[:9]), progress(KEY[9:]))
        assert KEY not in texts(shown)
        assert (shown[0] is None) is (count > 256)


def test_memory_and_looks_do_not_grow_with_the_stream(tmp_path):
    looking = stream(tmp_path, **REDACT)
    inspector = looking._inspection._inspector
    play(looking, *(progress("y" * 500) for _ in range(300)))
    assert max(map(len, inspector.looked)) < 16_384
    assert sum(len(piece.text) for pieces in looking._members.values() for piece in pieces) < 16_384
    play(stream(tmp_path, **REDACT), *(log({f"member-{number}": "z" * 50}) for number in range(200)))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, None, None),
        (None, Signals(inspected="complete"), Signals(inspected="complete")),
        (Signals(inspected="partial"), Signals(inspected="complete"), Signals(inspected="partial")),
        (
            Signals(inspected="complete", findings=("secret/a",), finding_count=2),
            Signals(inspected="complete", findings=("ansi/b", "secret/a"), finding_count=3),
            Signals(inspected="complete", findings=("ansi/b", "secret/a"), finding_count=5),
        ),
    ],
)
def test_two_looks_are_one(one: Signals | None, other: Signals | None, expected: Signals | None):
    assert both(one, other) == expected
    assert both(other, one) == expected
