"""A service with tiles and anchor in S3, on a real server: records, proofs, collection, restart, audit, commands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConfigError, NotFoundError
from ledger.proofs import verify_inclusion
from ledger.tiles import BUNDLE_LEVEL, TileCoordinate, unpack_bundle
from service.auth import Role
from service.cli.main import main
from tests.support.ledger import LOG_ID
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server, s3_server
from tests.support.service import RunningService, start_service

SLOWLY = 300
"""So many records one by one, with checkpoints between them, leave many partials."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        for name in ("log", "anchor"):
            running.make_bucket(name, locks=True)
        running.make_bucket("plain")
        yield running


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for prefix in ("LOG_S3", "ANCHOR_S3"):
            patch.setenv(f"{prefix}_ACCESS_KEY_ID", ACCESS_KEY)
            patch.setenv(f"{prefix}_SECRET_ACCESS_KEY", SECRET_KEY)
        yield patch


def places(server: S3Server, **changes: object) -> dict[str, Any]:
    accepted = "shorten,downgrade,downgrade-bypass,remove" if server.name == "moto" else ""
    return {
        "tiles": "s3://log/t",
        "tiles_endpoint": server.endpoint,
        "tiles_retention_days": 1,
        "tiles_credentials": "env:LOG_S3",
        "anchor": "s3://anchor/a",
        "anchor_endpoint": server.endpoint,
        "anchor_retention_days": 2,
        "anchor_credentials": "env:ANCHOR_S3",
        "anchor_accept": accepted,
        **changes,
    }


@dataclass(frozen=True)
class Scene:
    """A log that one service wrote, and that a second one took up again."""

    root: Path
    server: S3Server
    service: RunningService
    partials: int


@pytest.fixture(scope="module")
def scene(server, environment, tmp_path_factory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("service")
    with start_service(root, checkpoint_interval_seconds=0.05, **places(server)) as first:
        enforcer = first.enforcer()
        for _ in range(6):
            enforcer.decide_many([{}] * (SLOWLY // 6))
            first.wait_until_published()
        partials = len(first.services.tiles.partial_widths(LOG_ID, BUNDLE_LEVEL, 0))
        partials += int(first.services.metrics.collected._value.get())
    with start_service(root, checkpoint_interval_seconds=0.05, **places(server)) as service:
        second = service.enforcer("gateway-2", seed=22)
        second.decide()
        service.wait_until_published()
        yield Scene(root=root, server=server, service=service, partials=partials)


def settle(scene: Scene) -> None:
    """Wait until the collector has come as far as the published checkpoint."""
    tiles = scene.service.services.tiles
    scene.service.run(lambda: _until(lambda: tiles.partial_widths(LOG_ID, BUNDLE_LEVEL, 0) == []))


async def _until(ready: Callable[[], bool]) -> None:
    import asyncio

    async with asyncio.timeout(20):
        while not await asyncio.to_thread(ready):  # noqa: ASYNC110  # the collector tells nobody
            await asyncio.sleep(0.05)


def test_a_log_goes_on_after_a_restart_and_every_record_has_a_proof(scene):
    services = scene.service.services
    published = services.publishing.published
    assert published.head.size > SLOWLY
    with scene.service.client() as auditor:
        checkpoint = auditor.get(f"/logs/{LOG_ID}/checkpoint").content
    head = parse_unverified_checkpoint(checkpoint).claim.head
    for index in (0, 1, 255, 256, head.size - 1):
        proof = services.prover.proof_file(index, checkpoint)
        verify_inclusion(services.prover.leaf(index, head.size), index, head, proof.path)


def test_nothing_of_the_log_is_on_the_machines_own_disk(scene):
    assert not (scene.root / "data" / "logs").exists()
    assert not (scene.root / "data" / "anchor").exists()


def test_partials_are_collected_and_still_answered_for_over_http_with_the_same_bytes(scene):
    assert scene.partials
    settle(scene)
    services = scene.service.services
    entries = services.prover.bundle(0)
    hashes = services.prover.tile_row(0, 0, 256)
    with scene.service.client() as auditor:
        for width in (1, 17, 255):
            partial = TileCoordinate(0, 0, width)
            with pytest.raises(NotFoundError):
                services.tiles.get(LOG_ID, partial.path)
            answer = auditor.get(f"/logs/{LOG_ID}/{partial.path}")
            assert (answer.status_code, answer.content) == (200, b"".join(hashes[:width]))
            bundle = auditor.get(f"/logs/{LOG_ID}/{TileCoordinate(BUNDLE_LEVEL, 0, width).path}")
            assert (bundle.status_code, unpack_bundle(bundle.content, width)) == (200, entries[:width])
        missing = [TileCoordinate(0, 7, 3), TileCoordinate(BUNDLE_LEVEL, 7, 3), TileCoordinate(0, 1, 255)]
        assert [auditor.get(f"/logs/{LOG_ID}/{one.path}").status_code for one in missing] == [404] * 3


def test_full_tiles_are_locked_and_partials_are_not(scene):
    client = scene.server.client()
    for path in ("tile/0/000", "tile/entries/000"):
        assert client.head_object(Bucket="log", Key=f"t/{LOG_ID}/{path}")["ObjectLockMode"] == "COMPLIANCE"
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="log", Prefix=f"t/{LOG_ID}/")["Contents"]]
    partials = [key for key in keys if ".p/" in key]
    assert partials
    assert all("ObjectLockMode" not in client.head_object(Bucket="log", Key=key) for key in partials)


def test_the_service_says_that_the_anchors_locks_were_tried(scene):
    with scene.service.stranger() as stranger:
        checks = {check["name"]: check for check in stranger.get("/readyz").json()["checks"]}
        metrics = stranger.get("/metrics").text
    assert checks["anchor"]["ok"]
    assert "its locks were tried and" in checks["anchor"]["detail"]
    assert checks["collecting"]["ok"]
    assert 'tallystick_anchor_refuses{attempt="delete"} 1.0' in metrics
    assert "tallystick_collecting_up 1.0" in metrics


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(scene, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a command with the settings of the service."""
    for name, value in scene.service.services.settings.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"TALLYSTICK_{name.upper()}", str(value))

    def run(*arguments: str, **settings: str) -> tuple[int, str, str]:
        for name, value in settings.items():
            monkeypatch.setenv(f"TALLYSTICK_{name.upper()}", value)
        monkeypatch.setattr(sys, "argv", ["tallystick", *arguments])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_audit_reads_everything_from_s3_and_finds_nothing(scene, command):
    settle(scene)
    status, out, err = command("audit", "--processes", "1")
    assert (status, err) == (0, "")
    assert "no fault found" in out


def test_verifying_the_anchor_reads_every_copy_and_every_lock(scene, command):
    status, out, err = command("anchor", "verify", "--tiles", "all", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["drift"] == told["notices"] == []
    assert told["copies"] >= 3
    assert told["tiles"] == 2
    assert told["newest"] <= told["published"]


def test_verifying_above_the_newest_copy_looks_at_nothing_and_is_no_failure(scene, command):
    newest = scene.service.services.publishing.anchor_status.receipt.size
    status, out, _ = command("anchor", "verify", "--above", str(newest), "--json")
    assert (status, json.loads(out)["copies"]) == (0, 0)


def test_a_copy_that_was_hidden_or_written_over_fails_the_verification_and_is_named(scene, command):
    size = scene.service.services.anchor.sizes(LOG_ID)[0]
    key = f"a/{LOG_ID}/checkpoint/{size:020d}"
    client = scene.server.client()
    client.put_object(Bucket="anchor", Key=key, Body=b"forged")
    client.delete_object(Bucket="anchor", Key=key)
    try:
        status, out, _ = command("anchor", "verify")
        assert status == 1
        assert f"FOUND overwritten (checkpoint {size})" in out
        assert f"FOUND hidden (checkpoint {size})" in out
    finally:
        found = client.list_object_versions(Bucket="anchor", Prefix=key)
        later = [one for one in found["Versions"] if one["Size"] == len(b"forged")]
        for one in [*later, *found["DeleteMarkers"]]:
            client.delete_object(Bucket="anchor", Key=key, VersionId=one["VersionId"])
    assert command("anchor", "verify")[0] == 0


def test_trying_the_bucket_says_what_held(scene, command):
    status, out, _ = command("anchor", "probe", "--json")
    told = json.loads(out)
    assert status == (1 if told["weaknesses"] else 0)
    assert bool(told["weaknesses"]) == (scene.server.name == "moto")
    shown = command("anchor", "probe")[1]
    assert "delete-bypass" in shown
    assert "held" in shown


@pytest.mark.parametrize(
    ("arguments", "settings", "status", "told"),
    [
        (("anchor", "verify"), {"anchor_endpoint": "http://127.0.0.1:9"}, 4, "the anchor bucket failed"),
        (("anchor", "probe"), {"anchor_endpoint": "http://127.0.0.1:9"}, 4, "the anchor bucket failed"),
        (("anchor", "verify"), {"tiles_endpoint": "http://127.0.0.1:9"}, 4, "the tile bucket failed"),
        (("anchor", "probe"), {"anchor": "s3://plain/a"}, 64, "without Object Lock"),
        (("anchor", "verify"), {"anchor": "s3://anchor/empty"}, 4, ""),
        (("anchor", "verify", "--tiles", "some"), {}, 64, "a number, or all"),
        (("anchor", "verify", "--tiles", "1"), {"tiles_retention_days": "0"}, 64, "not locked"),
        (("anchor", "verify"), {"anchor_credentials": "env:NOBODY"}, 64, "lack an access key"),
    ],
)
def test_what_cannot_be_looked_at_is_neither_success_nor_drift(command, arguments, settings, status, told):
    ended, _, err = command(*arguments, **settings)
    assert ended == status
    assert told in err
    assert err.count("\n") <= 4
    assert SECRET_KEY not in err


# --- starting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tiles_retention_days": None}, "TALLYSTICK_TILES_RETENTION_DAYS"),
        ({"anchor_retention_days": None}, "TALLYSTICK_ANCHOR_RETENTION_DAYS"),
        ({"tiles": "s3://plain/t"}, "without Object Lock"),
        ({"anchor": "s3://plain/a"}, "without Object Lock"),
        ({"anchor_accept": "everything"}, "everything"),
        ({"tiles_credentials": "env:NOBODY"}, "lack an access key"),
        ({"anchor_credentials": "file:/nonexistent/credentials"}, "cannot be read"),
    ],
)
def test_a_service_does_not_start_without_a_decision_or_with_buckets_that_cannot_hold(
    server, environment, tmp_path, changes, told
):
    with pytest.raises(ConfigError, match=told):
        start_service(tmp_path, **places(server, **changes))


def test_a_bucket_that_gives_way_stops_the_start_unless_it_was_accepted_by_name(environment, tmp_path):
    (tmp_path / "moto").mkdir()
    with s3_server(tmp_path / "moto", imitated=True) as moto:
        for name in ("log", "anchor"):
            moto.make_bucket(name, locks=True)
        weak = "shorten, downgrade,downgrade-bypass,remove"
        with pytest.raises(ConfigError, match="shorten"):
            start_service(tmp_path, **places(moto, anchor_accept=""))
        with start_service(tmp_path, **places(moto, anchor_accept=weak)) as service:
            service.enforcer().decide()
            service.wait_until_published()
            with service.stranger() as stranger:
                told = {check["name"]: check["detail"] for check in stranger.get("/readyz").json()["checks"]}
                metrics = stranger.get("/metrics").text
            assert any("may not refuse: shorten" in one for one in service.services.settings.warnings())
    assert "gave way to shorten" in told["anchor"]
    assert 'tallystick_anchor_refuses{attempt="shorten"} 0.0' in metrics


def test_an_anchor_that_is_down_at_the_start_stops_no_record(server, environment, tmp_path):
    away = places(server, anchor_endpoint="http://127.0.0.1:9", anchor="s3://anchor/away", tiles="s3://log/away")
    with start_service(tmp_path, **away) as service:
        record_id = service.enforcer().decide()
        with service.client(Role.AUDITOR) as auditor, service.stranger() as stranger:
            seen = stranger.get("/readyz")
            stored = auditor.get(f"/v1/decisions/{record_id}")
    assert seen.status_code == 200
    assert stored.status_code == 200
    assert service.services.publishing.published is None


# --- legal holds -----------------------------------------------------------------------------------------------------


def held_in(server: S3Server, bucket: str, prefix: str) -> dict[str, bool]:
    """Return whether each version below a prefix is under a legal hold, by its key."""
    client = server.client()
    found = {}
    for one in client.list_object_versions(Bucket=bucket, Prefix=prefix).get("Versions", []):
        try:
            told = client.get_object_legal_hold(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
        except ClientError:
            found[one["Key"]] = False
        else:
            found[one["Key"]] = told["LegalHold"]["Status"] == "ON"
    return found


def wait_until_held(server: S3Server, *, held: bool) -> None:
    """Wait until every anchored checkpoint and full bundle is held, or none is."""
    deadline = time.monotonic() + 60
    while True:
        copies = held_in(server, "anchor", f"holding/{LOG_ID}/checkpoint/")
        copies |= {key: on for key, on in held_in(server, "log", "holding/").items() if key.endswith("/entries/000")}
        if len(copies) > 1 and set(copies.values()) == {held}:
            return
        assert time.monotonic() < deadline, copies
        time.sleep(0.1)


def test_a_hold_that_is_placed_over_http_holds_what_anchor_and_tiles_lock_until_two_people_end_it(
    server, environment, tmp_path
):
    settings = places(server, tiles="s3://log/holding", anchor="s3://anchor/holding")
    with start_service(tmp_path, checkpoint_interval_seconds=0.2, **settings) as service:
        service.enforcer().decide_many([{}] * 260)
        service.wait_until_published()
        with service.client(token=service.token(Role.ADMIN, "anna")) as anna:
            scope = {"session": "5" * 32, "reason": "matter 12 of 2026"}
            placed = [anna.post("/v1/holds", json=scope).raise_for_status().json()["hold_id"] for _ in range(2)]
        wait_until_held(server, held=True)
        for number, hold_id in enumerate(placed):
            for name in ("anna", "ben"):
                with service.client(token=service.token(Role.ADMIN, name)) as client:
                    client.post(f"/v1/holds/{hold_id}/release").raise_for_status()
            wait_until_held(server, held=number == 0)
