"""The engine cellar: engines of other versions, put in whole, tried, and asked for what they decided before."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from ledger.bodies import BundleReference
from ledger.bodies import Decision as DecisionBody
from ledger.body_fields import Commitment
from ledger.errors import ConfigError, NotFoundError
from policies.cellar import DESCRIPTION, DirectoryCellar, look_into
from policies.cellar_filling import add_wheel, keep_installed, remove_engine
from policies.evaluate import Evaluator, Reason
from policies.model import encode_request, public_facts
from policies.replay import RecordedDecision, ReplayClass, ReplayResult, replay
from policies.workers import WorkerEngine, WorkerPool
from service.cli.main import cli
from service.wiring.engines import ENGINE_KINDS
from tests.support.kept_engines import TINY, tiny_wheel
from tests.support.policies import cedar_bundle, make_request

BUNDLE = cedar_bundle("//", engine="tiny")
COMMITMENT = Commitment(digest="0" * 64, size_bytes=0)
ANSWERS = {"1.2": "PERMIT", "1.9": "DENY", "1.10": "NOT_APPLICABLE"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A cellar with three versions of the tiny engine; tests that change it take a copy."""
    cellar = tmp_path_factory.mktemp("filled") / "engines"
    for version, answer in ANSWERS.items():
        add_wheel(cellar, TINY, version, tiny_wheel(cellar.parent, version, answer))
    return cellar


@pytest.fixture
def cellar(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "engines"))


class Stocked:
    """An evaluator whose installed engine is of version 1.10, over a cellar."""

    def __init__(self, cellar: Path) -> None:
        pool = WorkerPool()
        place = next(place for place in look_into(cellar) if place.kept.version == "1.10")
        stock = DirectoryCellar(cellar, (TINY,), pool)
        installed = stock._opened(place)
        assert isinstance(installed, WorkerEngine)
        self.evaluator = Evaluator({"tiny": installed}, cellar=stock, workers=pool)

    def decide(self, version: str | None = None) -> tuple[str, str, str]:
        (result,) = asyncio.run(self.evaluator.evaluate_many(BUNDLE, [make_request()], engine_version=version))
        return result.decision.effect, result.decision.reason, result.decision.engine_version

    def replay(self, effect: str, version: str) -> ReplayResult:
        request = make_request()
        body = DecisionBody(
            agent=request.principal.agent,
            server=request.resource.server,
            decision=effect,  # type: ignore[arg-type]  # one of the four
            enforcement="deny",
            mode="enforce",
            reason="policy",
            evaluation_us=1,
            session="0" * 32,
            message=COMMITMENT,
            method=request.action,
            tool=request.resource.name,
            bundle=BundleReference(name="test", revision=BUNDLE.revision, engine="tiny", engine_version=version),
            rules=("all",),
            facts=public_facts(request),
            request=COMMITMENT,
            tags=request.resource.tags,
        )
        original = RecordedDecision(record_id="r", body=body, request=encode_request(request))
        return asyncio.run(replay(original, BUNDLE, self.evaluator))


@pytest.fixture
def stocked(cellar: Path) -> Iterator[Stocked]:
    made = Stocked(cellar)
    yield made
    made.evaluator.close()


# --- deciding and replaying


def test_each_version_answers_for_itself(stocked):
    assert stocked.evaluator.engine_versions("tiny") == ("1.10", "1.9", "1.2")
    assert stocked.decide() == ("NOT_APPLICABLE", Reason.POLICY, "1.10")
    for version, answer in ANSWERS.items():
        assert stocked.decide(version) == (answer, Reason.POLICY, version)


def test_decision_of_an_engine_that_is_kept_is_replayed_exactly_by_it(stocked):
    result = stocked.replay("PERMIT", "1.2")
    assert (result.classification, result.same, result.differences) == (ReplayClass.EXACT, True, ())
    assert result.replayed is not None
    assert result.replayed.engine_version == "1.2"


def test_decision_of_an_engine_that_nobody_has_is_replayed_by_the_installed_one_which_says_so(stocked):
    result = stocked.replay("PERMIT", "1.3")
    assert (result.classification, result.same) == (ReplayClass.ENGINE_CHANGED, False)
    assert "1.3" in result.explanation
    assert "1.10" in result.explanation


def test_engine_that_was_taken_out_decides_no_more(stocked, cellar):
    assert stocked.decide("1.2")[0] == "PERMIT"
    remove_engine(cellar, TINY, "1.2")
    assert stocked.evaluator.engine_versions("tiny") == ("1.10", "1.9")
    assert stocked.decide("1.2") == ("INDETERMINATE", Reason.BUNDLE_ERROR, "unavailable")
    assert stocked.replay("PERMIT", "1.2").classification is ReplayClass.ENGINE_CHANGED
    with pytest.raises(NotFoundError, match=r"tiny-engine==1\.2"):
        remove_engine(cellar, TINY, "1.2")


@pytest.mark.parametrize("harm", ["changed", "added", "missing"])
def test_engine_whose_files_were_changed_is_not_used(cellar, harm):
    package = cellar / "tiny-1.2" / "packages" / "tiny_engine"
    if harm == "changed":
        (package / "__init__.py").write_text("ANSWER = 'DENY'\n")
    elif harm == "added":
        (package / "more.py").write_text("")
    else:
        (package / "__init__.py").unlink()
    made = Stocked(cellar)
    try:
        assert made.evaluator.engine_versions("tiny") == ("1.10", "1.9")
        assert made.decide("1.2") == ("INDETERMINATE", Reason.BUNDLE_ERROR, "unavailable")
    finally:
        made.evaluator.close()


def test_engine_for_another_machine_is_not_used(cellar):
    description = cellar / "tiny-1.2" / DESCRIPTION
    description.write_text(json.dumps({**json.loads(description.read_text()), "machine": "cpython-27 plan9"}))
    assert DirectoryCellar(cellar, (TINY,), WorkerPool()).versions("tiny") == ("1.10", "1.9")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format":"tallystick.engine/2"}', "\xff", '{"format":"tallystick.engine/1"}']
)
def test_directory_that_does_not_say_what_it_is_is_left_alone(cellar, text):
    (cellar / "tiny-1.2" / DESCRIPTION).write_text(text, encoding="latin-1")
    (cellar / ".making-abc").mkdir()
    (cellar / "a file").touch()
    assert [place.kept.version for place in look_into(cellar)] == ["1.9", "1.10"]


def test_cellar_that_is_not_there_holds_nothing(tmp_path):
    stock = DirectoryCellar(tmp_path / "none", (TINY,), WorkerPool())
    assert (stock.versions("tiny"), stock.engine("tiny", "1.2")) == ((), None)
    assert look_into(tmp_path / "none") == []


# --- putting in


def test_wheel_is_kept_with_its_digest(filled, tmp_path):
    wheel = tiny_wheel(tmp_path, "3.0")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    kept = add_wheel(tmp_path / "engines", TINY, "3.0", wheel, expected_sha256=digest)
    assert (kept.wheel_sha256, kept.source, kept.version) == (digest, wheel.name, "3.0")
    (place,) = look_into(tmp_path / "engines")
    assert place.kept == kept
    assert place.is_intact()


@pytest.mark.parametrize(
    ("version", "options", "message"),
    [
        ("3.1", {}, "is no engine that this version of Tallystick can work with"),
        ("3.0", {"expected_sha256": "00" * 32}, "has the SHA-256"),
    ],
)
def test_wheel_that_is_not_what_was_asked_for_is_refused_whole(tmp_path, version, options, message):
    with pytest.raises(ConfigError, match=message):
        add_wheel(tmp_path / "engines", TINY, version, tiny_wheel(tmp_path, "3.0"), **options)
    assert not list(tmp_path.glob("engines/*"))
    assert not list(tmp_path.glob("engines/.*"))


def test_package_that_is_no_such_engine_is_refused_whole(tmp_path):
    with pytest.raises(ConfigError, match="is no engine"):
        add_wheel(tmp_path / "engines", TINY, "3.0", tiny_wheel(tmp_path, "3.0", package="another"))
    assert look_into(tmp_path / "engines") == []


def test_file_that_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ConfigError, match=r"x\.whl is no wheel"):
        add_wheel(tmp_path / "engines", TINY, "3.0", tmp_path / "x.whl")


def test_version_is_put_in_once(cellar, tmp_path):
    before = [place.kept for place in look_into(cellar)]
    with pytest.raises(ConfigError, match="is in the cellar already"):
        add_wheel(cellar, TINY, "1.2", tiny_wheel(tmp_path, "1.2", "DENY"))
    assert [place.kept for place in look_into(cellar)] == before


def test_outgoing_engine_is_kept_and_decides_as_the_installed_one(tmp_path):
    """An upgrade is imagined: the kept copy of the installed Cedar is asked by its version, as after one."""
    (kind,) = (kind for kind in ENGINE_KINDS if kind.name == "cedar")
    kept = keep_installed(tmp_path, kind)
    assert kept is not None
    assert keep_installed(tmp_path, kind) is None
    pool = WorkerPool()
    stock = DirectoryCellar(tmp_path, (kind,), pool)
    after = Evaluator({}, cellar=stock, workers=pool)
    try:
        assert after.engine_versions("cedar") == (kept.version,)
        policies = '@id("all") permit (principal, action, resource);'
        (result,) = asyncio.run(
            after.evaluate_many(cedar_bundle(policies), [make_request()], engine_version=kept.version)
        )
        assert (result.decision.effect, result.decision.engine_version) == ("PERMIT", kept.version)
    finally:
        after.close()


# --- the command


@pytest.fixture
def command(cellar, monkeypatch):
    monkeypatch.setenv("TALLYSTICK_ENGINE_CELLAR", str(cellar))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["engines", *arguments])
        return result.exit_code, result.output

    return run


def test_command_lists_what_is_installed_and_kept(command, cellar):
    (cellar / "tiny-1.9" / "packages" / "tiny_engine" / "__init__.py").write_text("")
    status, told = command("list", "--json")
    assert status == 0
    states = {row["requirement"]: row["state"] for row in json.loads(told)["engines"]}
    assert states["tiny-engine==1.2"] == "kept"
    assert states["tiny-engine==1.9"].startswith("CHANGED")
    assert "installed" in states.values()


def test_command_adds_from_a_file_and_removes(command, monkeypatch, tmp_path):
    monkeypatch.setattr("service.wiring.engines.ENGINE_KINDS", (TINY,))
    wheel = tiny_wheel(tmp_path, "2.0")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    status, told = command("add", "tiny-engine==2.0", "--wheel", str(wheel), "--sha256", digest)
    assert (status, told) == (0, f"kept tiny-engine==2.0, SHA-256 of its wheel {digest}\n")
    assert command("remove", "tiny-engine==2.0") == (0, "removed tiny-engine==2.0\n")
    assert command("remove", "tiny-engine==2.0")[0] != 0


@pytest.mark.parametrize("requirement", ["cedarpy", "cedarpy>=1", "requests==2.0", "cedarpy==../../x", "cedarpy=="])
def test_command_takes_an_engines_package_and_exact_version_alone(command, requirement):
    status, told = command("add", requirement)
    assert status == 64
    assert "Traceback" not in told


def test_description_is_of_the_documented_form(filled):
    written = (filled / "tiny-1.2" / DESCRIPTION).read_bytes()
    assert json.loads(written)["format"] == "tallystick.engine/1"
    assert msgspec.json.decode(written)["distribution"] == "tiny-engine"
