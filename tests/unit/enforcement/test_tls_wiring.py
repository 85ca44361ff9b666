"""Which certificates are looked after while lists of servers come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from enforcement.config import ServerSettings
from enforcement.metrics import Metrics
from enforcement.tls_watch import CertificateWatch
from enforcement.tls_wiring import ServerContexts
from ledger.clock import SystemClock
from tests.support.pki import GATEWAY, PKI

PIN = {"spki_sha256": ["ab" * 32]}


def server(pki: PKI, name: str, **members: Any) -> ServerSettings:
    tls = {**pki.client("gateway-1", GATEWAY).settings, "ca": str(pki.ca)}
    return ServerSettings.model_validate({"name": name, "url": "https://localhost/mcp", "tls": tls, **members})


def test_a_certificate_that_two_servers_share_is_renewed_after_one_of_them_has_gone_another_way(tmp_path: Path) -> None:
    async def play() -> None:
        pki = PKI(tmp_path)
        metrics = Metrics().tls
        watch = CertificateWatch(metrics)
        ways = ServerContexts(metrics, watch, SystemClock())
        finance, payroll = server(pki, "finance"), server(pki, "payroll")
        ways.prepare([finance, payroll])
        # A list that is looked at is not yet one that is taken up.
        ways.prepare([pinned := server(pki, "finance", pin=PIN), payroll])
        assert len(watch.readiness()) == 2
        ways.keep([pinned, payroll])
        assert len(watch.readiness()) == 2
        before = ways.context(payroll), ways.context(pinned)
        pki.client("gateway-1", GATEWAY)
        await watch.look()
        after = ways.context(payroll), ways.context(pinned)
        assert all(new is not old for new, old in zip(after, before, strict=True))
        ways.keep([pinned])
        assert len(watch.readiness()) == 1

    asyncio.run(play())
