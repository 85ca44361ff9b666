"""What safeguards say of a call reaches policy and record; what they cannot say denies it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.drafts import Case
from enforcement.signals import Safeguards, SignalSource
from enforcement.verdicts import RESULT_OBLIGATIONS, Denied, Permitted, enforcement_of
from ledger.bodies import Decision as DecisionBody
from policies.model import Decision, Effect, decode_request
from policies.signals import Signals
from tests.unit.enforcement.test_pep import INBOUND, World, told


class Scripted(SignalSource):
    """A safeguard that says what it was told to."""

    def __init__(self, name: str, fills: frozenset[str], says: Any, *, concerned: bool = True) -> None:
        self._name, self._fills, self._says, self._concerned = name, fills, says, concerned
        self.asked = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def fills(self) -> frozenset[str]:
        return self._fills

    def concerns(self, case: Case) -> bool:
        assert case.request is not None
        return self._concerned

    async def signals(self, case: Case) -> Signals:
        assert self.concerns(case)
        self.asked += 1
        if isinstance(self._says, asyncio.Event):
            await self._says.wait()
        if isinstance(self._says, Exception):
            raise self._says
        assert isinstance(self._says, Signals)
        return self._says


INSPECTION = frozenset({"inspected", "inspector", "findings", "finding_count"})
FOUND = Signals(inspected="partial", inspector="1e" * 32, findings=("secret/pem-key",), finding_count=2)


def inspection(says: Any = FOUND, **options: Any) -> Scripted:
    return Scripted("inspection", INSPECTION, says, **options)


def tools(state: Any = "pinned", **options: Any) -> Scripted:
    says = Signals(tool_state=state) if isinstance(state, str) else state
    return Scripted("tool_state", frozenset({"tool_state"}), says, **options)


def play(
    directory: Path, safeguards: Safeguards, mode: str = "enforce"
) -> tuple[World, list[Permitted | Denied], list[DecisionBody]]:
    """Judge one call; return the verdict and what was recorded."""
    verdicts: list[Permitted | Denied] = []
    decisions: list[DecisionBody] = []

    async def scenario(world: World) -> None:
        verdicts.append(await world.pep.handle(INBOUND))
        decisions.extend(world.decisions())

    world = World(directory, safeguards=safeguards, server={"recording": "strict", "mode": mode})
    return world.run(scenario), verdicts, decisions


def test_parts_of_several_safeguards_are_put_together_for_policy_and_record(tmp_path: Path) -> None:
    profile = Scripted(
        "profile", frozenset({"baseline", "deviations"}), Signals(baseline="ready", deviations=("hour",))
    )
    world, (verdict,), decisions = play(tmp_path, Safeguards(sources=(inspection(), tools(), profile)))
    assert isinstance(verdict, Permitted)
    (asked,) = world.evaluator.asked
    assert asked.version == 3
    assert asked.signals == Signals(
        inspected="partial", inspector="1e" * 32, findings=("secret/pem-key",), finding_count=2,
        tool_state="pinned", baseline="ready", deviations=("hour",),
    )  # fmt: skip
    (decision,) = decisions
    assert decision.inspection is not None
    assert (decision.inspection.extent, decision.inspection.inspector) == ("partial", "1e" * 32)
    assert (decision.inspection.findings, decision.inspection.count) == (("secret/pem-key",), 2)
    assert (decision.tool_state, decision.deviations) == ("pinned", ("hour",))


@pytest.mark.parametrize("sources", [(), (inspection(concerned=False), tools(concerned=False))])
def test_a_call_that_concerns_no_safeguard_is_asked_and_recorded_as_ever(tmp_path: Path, sources: Any) -> None:
    world, (verdict,), decisions = play(tmp_path, Safeguards(sources=sources))
    assert isinstance(verdict, Permitted)
    (asked,) = world.evaluator.asked
    (decision,) = decisions
    assert asked.version == 1
    assert (decision.inspection, decision.tool_state, decision.deviations) == (None, None, ())


def test_a_safeguard_gives_what_it_fills_and_nothing_else(tmp_path: Path) -> None:
    claims = Scripted("tool_state", frozenset({"tool_state"}), Signals(tool_state="pinned", baseline="ready"))
    world, _, _ = play(tmp_path, Safeguards(sources=(claims,)))
    (asked,) = world.evaluator.asked
    assert asked.signals == Signals(tool_state="pinned")


@pytest.mark.parametrize(
    "broken",
    [
        RuntimeError("AKIAIOSFODNN7EXAMPLE"),
        TimeoutError("AKIAIOSFODNN7EXAMPLE"),
        "AKIAIOSFODNN7EXAMPLE",  # no signals at all
    ],
)
def test_a_safeguard_that_fails_denies_and_no_policy_is_asked(
    tmp_path: Path, broken: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    world, (verdict,), decisions = play(tmp_path, Safeguards(sources=(tools(), inspection(broken))))
    assert told(verdict)["reason"] == "signals_unavailable"
    assert world.evaluator.asked == []
    (decision,) = decisions
    assert (decision.decision, decision.enforcement, decision.reason) == (
        "INDETERMINATE",
        "deny",
        "signals_unavailable",
    )
    assert decision.inspection is None
    said = capsys.readouterr()
    assert "AKIA" not in said.out + said.err


def test_a_safeguard_that_does_not_answer_denies_when_its_time_is_over(tmp_path: Path) -> None:
    safeguards = Safeguards(sources=(inspection(asyncio.Event()), tools()), seconds=0.01)
    _, (verdict,), decisions = play(tmp_path, safeguards)
    assert told(verdict)["reason"] == "signals_unavailable"
    assert [one.reason for one in decisions] == ["signals_unavailable"]


def test_a_state_that_no_record_could_hold_denies(tmp_path: Path) -> None:
    # A struct that was made by hand is not checked; what comes of it is.
    loose = Signals(inspected="complete", findings=("AKIAIOSFODNN7EXAMPLE",), finding_count=1)
    world, (verdict,), _ = play(tmp_path, Safeguards(sources=(inspection(loose),)))
    assert told(verdict)["reason"] == "signals_unavailable"
    assert world.evaluator.asked == []


def test_an_observed_server_is_called_all_the_same_and_the_record_says_why_it_would_not_have_been(
    tmp_path: Path,
) -> None:
    _, (verdict,), decisions = play(tmp_path, Safeguards(sources=(inspection(ValueError()),)), mode="observe")
    assert isinstance(verdict, Permitted)
    (decision,) = decisions
    assert (decision.mode, decision.enforcement, decision.reason) == ("observe", "allow", "signals_unavailable")


@pytest.mark.parametrize("fills", [("tool_state", "tool_state"), ("inspected", "weather")])
def test_two_safeguards_cannot_fill_one_member_and_none_a_member_that_there_is_not(fills: tuple[str, str]) -> None:
    sources = [Scripted(name, frozenset({name}), Signals()) for name in fills]
    with pytest.raises(ValueError, match="each signal is filled by one source"):
        Safeguards(sources=sources)


def test_what_was_recorded_can_be_replayed(tmp_path: Path) -> None:
    world, _, _ = play(tmp_path, Safeguards(sources=(inspection(),)))
    payloads = [opening.payload for one in world.ledger.taken for opening in one.openings if opening.field == "request"]
    (request,) = [decode_request(payload) for payload in payloads]
    assert request == world.evaluator.asked[0]
    assert json.loads(payloads[0])["signals"]["findings"] == ["secret/pem-key"]


@pytest.mark.parametrize("obligation", sorted(RESULT_OBLIGATIONS))
def test_a_result_that_nobody_looks_through_cannot_be_redacted_or_blocked(obligation: Any) -> None:
    answer = Decision(
        effect=Effect.PERMIT, bundle_revision="00" * 32, engine="e", engine_version="1", obligations=(obligation,)
    )
    assert enforcement_of(answer) == ("deny", "unknown_obligation")
    assert enforcement_of(answer, fulfils=RESULT_OBLIGATIONS) == ("allow", "policy")
