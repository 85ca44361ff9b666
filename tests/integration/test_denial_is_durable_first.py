"""A denial is on the disk before its client hears of it; whoever is killed in between has it afterwards."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from enforcement.batches import Batch
from enforcement.spool import Spool
from ledger.bodies import Decision
from ledger.records import decode_entry
from ledger.restrictions import Restriction, RestrictionSet
from policies.model import Effect
from tests.support.gateway import WAIT_SECONDS, Surroundings, deny_tool, surroundings
from tests.support.mcp_messages import body_of, headers_of
from tests.support.spools import open_spool

CONTAINED = RestrictionSet(
    [
        Restriction(
            restriction_id="01990000-0000-7000-8000-00000000000a",
            kind="containment",
            scope="tool",
            since_ms=1,
            server="finance",
            tool="refund_customer",
        )
    ],
    version=7,
)


@dataclass
class Gate:
    """Holds the thread of the spool where a decision is about to be synced, and again where it has been."""

    directory: Path
    about_to_sync: threading.Event = field(default_factory=threading.Event)
    sync: threading.Event = field(default_factory=threading.Event)
    synced: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def around(self, append: Callable[..., Any]) -> Callable[..., Any]:
        def gated(spool: Spool, batches: Sequence[Batch]) -> Any:
            if not any(isinstance(item.draft.body, Decision) for batch in batches for item in batch.items):
                return append(spool, batches)
            self.about_to_sync.set()
            assert self.sync.wait(WAIT_SECONDS)
            result = append(spool, batches)
            # What `kill -9` would leave at this moment: the file and its log as they are, without any closing.
            shutil.copytree(self.directory / "state", self.directory / "killed")
            self.synced.set()
            assert self.go_on.wait(WAIT_SECONDS)
            return result

        return gated

    def open(self) -> None:
        self.sync.set()
        self.go_on.set()


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, WAIT_SECONDS)


def ending(_: object) -> dict[str, Any]:
    return {"effect": Effect.DENY, "obligations": ("end_session",)}


OBSERVED = {"server": {"mode": "observe"}}
CASES: dict[str, dict[str, Any]] = {
    "policy": {"answer": deny_tool("refund_customer")},
    "policy, available": {"answer": deny_tool("refund_customer"), "server": {"recording": "available"}},
    "policy, strict": {"answer": deny_tool("refund_customer"), "server": {"recording": "strict"}},
    "kill": {"answer": ending},
    "contained": {"restricted": CONTAINED},
    "contained, observed": {"restricted": CONTAINED, "server": {"recording": "available"}, **OBSERVED},
    "unreadable": {"body": b'{"jsonrpc":"2.0","id":7,"id":8}'},
    "unreadable, observed": {"body": b'{"jsonrpc":"2.0","id":7,"id":8}', **OBSERVED},
    "stranger": {"token": "nobody's"},
}
REASONS = {
    "contained": "contained",
    "contained, observed": "contained",
    "unreadable": "duplicate_key",
    "unreadable, observed": "duplicate_key",
    "stranger": "unauthenticated",
}


@pytest.mark.parametrize("name", CASES)
def test_block_is_durable_before_the_client_has_the_denial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    options = dict(CASES[name])
    restricted = options.pop("restricted", RestrictionSet())
    body, token = options.pop("body", body_of()), options.pop("token", "finance-token")
    gate = Gate(tmp_path)

    async def scenario(world: Surroundings) -> dict[str, Any]:
        world.ledger.restricted = restricted
        async with world.running() as gateway, world.http(None) as http:
            await world.settle(lambda: gateway.core.readiness()[1]["restrictions_stale"] is False)
            monkeypatch.setattr(Spool, "append", gate.around(Spool.append))
            try:
                headers = {key.decode(): value.decode() for key, value in headers_of(token=token)}
                call = asyncio.create_task(http.post(world.mcp_url, content=body, headers=headers))
                await until(gate.about_to_sync)
                assert not call.done()
                gate.sync.set()
                await until(gate.synced)
                # On the disk, and the client has nothing; only then is it answered.
                assert not call.done()
            finally:
                gate.open()
            answer = await call
            monkeypatch.undo()
        assert world.tools.calls == []
        return dict(json.loads(answer.text)["error"]["data"])

    async def run() -> dict[str, Any]:
        async with surroundings(tmp_path, **options) as world:
            return await scenario(world)

    told = asyncio.run(run())
    state, killed = open_spool(tmp_path / "killed")
    records = [decode_entry(one.entry) for one in killed.pending(max_records=1000, max_bytes=1 << 30)]
    blocked = state.read("SELECT decision_id FROM blocks")
    state.close()
    (record,) = [one for one in records if isinstance(one.body, Decision)]
    assert isinstance(record.body, Decision)
    assert record.record_id == told["decision_id"]
    assert record.body.enforcement == ("kill" if name == "kill" else "deny")
    assert record.body.reason == told["reason"] == REASONS.get(name, "policy")
    assert blocked == ([(record.record_id,)] if name == "kill" else [])
