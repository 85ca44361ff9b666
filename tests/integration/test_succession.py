"""A log whose keys are lost: the new one commits to the old one's last checkpoint, and everybody can check it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ledger.bodies import Succession
from ledger.errors import RollbackError, SplitViewError, StateError, TrustPolicyError
from ledger.succession import commit_to, find_succession, refuse_two_successors, verify_predecessor
from ledger.trust import parse_trust_policy
from service.cli.main import cli
from tests.integration.test_service_life import refuses_to_start
from tests.support.service import ORIGIN, RunningService, start_service

NEW_ORIGIN = "service.example/acme-2"


def newest(service: RunningService) -> bytes:
    service.wait_until_published()
    published = service.services.publishing.published
    assert published is not None
    return published.checkpoint


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """Return the folder of a log that has ended, with two checkpoints that somebody kept."""
    root = tmp_path_factory.mktemp("old")
    with start_service(root) as service:
        (root / "earlier.checkpoint").write_bytes(newest(service))
        service.enforcer().decide()
        (root / "last.checkpoint").write_bytes(newest(service))
        service.enforcer("gateway-2", seed=33).decide()
        (root / "beyond.checkpoint").write_bytes(newest(service))
    return root


def succeed(old: Path, new: Path, *more: str, origin: str = NEW_ORIGIN) -> Result:
    arguments = ["keys", "succeed", str(new / "keys"), "--origin", origin, "--simulated"]
    arguments += ["--from", str(old / "last.checkpoint"), "--trust", str(old / "keys" / "trust.policy"), *more]
    return CliRunner().invoke(cli, arguments)


def succession_of(service: RunningService) -> Succession:
    parts = service.services
    found = find_succession(parts.reader.record, parts.sequenced_size())
    assert found is not None
    return found[1]


def test_the_new_log_opens_with_what_it_commits_to_and_its_audit_is_clean(old, tmp_path):
    made = succeed(old, tmp_path, "--json")
    assert made.exit_code == 0, made.output
    with start_service(tmp_path, origin=NEW_ORIGIN) as service:
        succession = succession_of(service)
        newest(service)
        arguments = ["audit", "--log", str(tmp_path / "data" / "logs" / "acme")]
        arguments += ["--trust", str(tmp_path / "keys" / "trust.policy")]
        audited = CliRunner().invoke(cli, arguments)
    assert audited.exit_code == 0, audited.output
    trust = parse_trust_policy((tmp_path / "keys" / "trust.policy").read_bytes())
    last = trust.verify((old / "last.checkpoint").read_bytes())
    assert json.loads(made.stdout)["succession"]["checkpoint_sha256"] == succession.checkpoint_sha256
    assert (succession.origin, succession.size, succession.root) == (ORIGIN, last.head.size, last.head.root.hex())
    verify_predecessor(succession, last)
    # And a restart goes on with it.
    with start_service(tmp_path, origin=NEW_ORIGIN) as service:
        assert succession_of(service) == succession


def test_the_audit_of_the_new_log_tells_the_chain_and_compares_checkpoints_of_the_old_one(old, tmp_path):
    assert succeed(old, tmp_path).exit_code == 0
    with start_service(tmp_path, origin=NEW_ORIGIN) as service:
        newest(service)
    arguments = ["audit", "--log", str(tmp_path / "data" / "logs" / "acme"), "--processes", "1", "--json"]
    arguments += ["--trust", str(tmp_path / "keys" / "trust.policy")]

    def audited(*known: str, depth: str = "full") -> tuple[int, dict[str, Any]]:
        given = [part for name in known for part in ("--known", str(old / f"{name}.checkpoint"))]
        result = CliRunner().invoke(cli, [*arguments, "--depth", depth, *given])
        return result.exit_code, json.loads(result.stdout)

    for depth in ("full", "hashes"):
        status, report = audited("last", depth=depth)
        assert (status, report["findings"]) == (0, [])
        (told,) = [notice["reason"] for notice in report["notices"] if notice["check"] == "succession"]
        assert told.startswith(f"this log succeeds {ORIGIN} (key_lost): it commits to ")
    status, report = audited("earlier")
    assert (status, report["findings"]) == (0, [])
    assert any("needs that log" in one for one in report["not_checked"])
    status, report = audited("beyond")
    assert (status, [finding["check"] for finding in report["findings"]]) == (1, ["succession"])
    assert "its successor commits to" in report["findings"][0]["reason"]


def test_a_checkpoint_of_another_log_is_found_where_there_is_no_succession(old, tmp_path):
    assert succeed(old, tmp_path).exit_code == 0
    both = tmp_path / "keys" / "trust.policy"
    arguments = ["audit", "--log", str(old / "data" / "logs" / "acme"), "--trust", str(both), "--json"]
    with start_service(tmp_path, origin=NEW_ORIGIN) as service:
        (tmp_path / "new.checkpoint").write_bytes(newest(service))
    result = CliRunner().invoke(cli, [*arguments, "--known", str(tmp_path / "new.checkpoint")])
    (finding,) = json.loads(result.stdout)["findings"]
    assert result.exit_code == 1
    assert "another log, which this one does not succeed" in finding["reason"]


def test_a_larger_tree_than_the_successor_commits_to_is_a_rollback_and_a_smaller_needs_the_old_log(old):
    trust = parse_trust_policy((old / "keys" / "trust.policy").read_bytes())
    succession = commit_to((old / "last.checkpoint").read_bytes(), trust, reason="key_lost")
    with pytest.raises(RollbackError, match="its successor commits to"):
        verify_predecessor(succession, trust.verify((old / "beyond.checkpoint").read_bytes()))
    with pytest.raises(StateError, match="needs that log"):
        verify_predecessor(succession, trust.verify((old / "earlier.checkpoint").read_bytes()))


def test_another_root_of_that_size_is_a_split_view(old):
    trust = parse_trust_policy((old / "keys" / "trust.policy").read_bytes())
    verified = trust.verify((old / "last.checkpoint").read_bytes())
    told = Succession(
        origin=ORIGIN, size=verified.head.size, root="0" * 64, checkpoint_sha256="1" * 64, reason="key_lost"
    )
    with pytest.raises(SplitViewError, match="two roots for size"):
        verify_predecessor(told, verified)


def test_a_checkpoint_of_another_log_is_no_predecessors(old):
    trust = parse_trust_policy((old / "keys" / "trust.policy").read_bytes())
    told = Succession(origin="log.example/other", size=1, root="0" * 64, checkpoint_sha256="1" * 64, reason="key_lost")
    with pytest.raises(TrustPolicyError, match=r"succeeds log\.example/other"):
        verify_predecessor(told, trust.verify((old / "last.checkpoint").read_bytes()))


def test_two_successors_of_one_log_contradict_one_another(old):
    trust = parse_trust_policy((old / "keys" / "trust.policy").read_bytes())
    one, other = (
        commit_to((old / name).read_bytes(), trust, reason="key_lost")
        for name in ("last.checkpoint", "beyond.checkpoint")
    )
    refuse_two_successors((NEW_ORIGIN, one), (NEW_ORIGIN, one))
    for second in (one, other):
        with pytest.raises(SplitViewError, match="both claim to succeed"):
            refuse_two_successors((NEW_ORIGIN, one), ("service.example/acme-3", second))
    with pytest.raises(SplitViewError, match="two predecessors"):
        refuse_two_successors((NEW_ORIGIN, one), (NEW_ORIGIN, other))


def test_an_old_checkpoint_that_the_policy_does_not_trust_makes_no_successor(old, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = CliRunner().invoke(cli, ["keys", "init", str(tmp_path / "other" / "keys"), "--origin", ORIGIN])
    assert stranger.exit_code == 0
    result = succeed(old, tmp_path, "--trust", str(tmp_path / "other" / "keys" / "trust.policy"))
    assert result.exit_code == 3
    assert not (tmp_path / "keys").exists()


def test_the_old_origin_is_not_the_new_one(old, tmp_path):
    result = succeed(old, tmp_path, origin=ORIGIN)
    assert result.exit_code == 64
    assert "needs an origin of its own" in result.output


def test_a_log_that_was_opened_without_a_predecessor_gets_none_later(old, tmp_path):
    assert succeed(old, tmp_path).exit_code == 0
    file = tmp_path / "keys" / "predecessor.json"
    kept = file.read_bytes()
    file.unlink()
    with start_service(tmp_path, origin=NEW_ORIGIN):
        pass
    file.write_bytes(kept)
    refuses_to_start(tmp_path, "names a predecessor with which this log was not opened", origin=NEW_ORIGIN)


@pytest.mark.parametrize("text", ["", "{}", '{"format":"tallystick.predecessor/1","checkpoint":"x","reason":"r"}'])
def test_a_predecessor_that_cannot_be_read_opens_no_log(old, tmp_path, text):
    assert succeed(old, tmp_path).exit_code == 0
    (tmp_path / "keys" / "predecessor.json").write_text(text)
    refuses_to_start(tmp_path, "cannot be used", origin=NEW_ORIGIN)
