"""Running the demonstration: service, servers, gateway and clients, from the first call to a verified pack.

Everything is real but the clock of the gateway and the keys, and both mark every record and page SIMULATED: a uvicorn
with the service over SQLite and directories, MCP servers of the official SDK in a process of their own, the gateway on
a socket of its own, clients of the official SDK that call from their own loopback addresses.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import httpx
import uvicorn

from enforcement.config import GatewayConfig
from enforcement.gateway import Gateway
from evidence.verify import verify_pack
from ledger.clock import SimulatedClock, SystemClock
from ledger.envelopes import ED25519
from ledger.errors import EvidenceError
from ledger.keys import generate_key, save_key
from ledger.notes import encode_base64
from ledger.trust import parse_trust_policy
from policies.directories import read_library_bundle
from service.app import create_app
from service.auth import Role
from service.cli.output import counted, program, shown_path
from service.cli.serving import STOP_SECONDS
from service.demo.clients import Answer, Callers
from service.demo.scenario import AGENTS, NETWORKS, Day, Step, steps
from service.demo.stage import API, WAIT_SECONDS, Checks, fresh, listen, say, serving, token_of, tool_servers
from service.keyset import make_key_set
from service.settings import load_settings
from service.wiring.assembly import build_services
from service.wiring.gateways import make_gateway
from service.wiring.installations import open_for_audit
from service.wiring.services import Services

__all__ = ["run_demo"]

_ZONE: Final = ZoneInfo("Europe/Berlin")
_WEDNESDAY: Final = 2
_PORT: Final = 8787
_OWN_GATEWAY: Final = "127.0.0.1:8789"
"""Where a server of one's own is invited to; the two ports below are the demonstration's."""
_PROGRESS_CALLS: Final = 50
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_BY_SIGNAL: Final = 128
_SERVERS: Final = ("finance", "support", "healthcare", "retail")


def _past_wednesday() -> Day:
    """Return the latest Wednesday that is over with the night after it."""
    now = datetime.fromtimestamp(SystemClock().now_ms() / 1000, tz=_ZONE)
    day = (now - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    while day.weekday() != _WEDNESDAY:
        day -= timedelta(days=1)
    return Day(start=day)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@dataclass(slots=True, kw_only=True)
class Demo:
    """One demonstration.

    Attributes:
        folder: Where it keeps its files.
        day: The simulated day.
        clock: The gateway's clock.
        checks: Its claims.
        tokens: The service's tokens by role.
        agent_tokens: The gateway's tokens by agent.
        revisions: Published bundles by name.
        answers: What was sent, and what came of it.
        told: Whether the whole story was told, and held.
    """

    folder: Path
    day: Day
    clock: SimulatedClock
    checks: Checks = field(default_factory=Checks)
    tokens: dict[str, str] = field(default_factory=dict)
    agent_tokens: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[Step, Answer]] = field(default_factory=list)
    told: bool = False

    # --- 1: setting up

    def make_services(self) -> tuple[Services, socket.socket]:
        """Make keys and service for an empty log."""
        listening = listen(_PORT)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings = load_settings(
            logs="",
            data_dir=self.folder / "data",
            keys_dir=self.folder / "keys",
            database_url="",
            anchor=f"directory:{self.folder / 'anchor'}",
            log_id="demo",
            tenant="demo",
            origin="tallystick.invalid/demo",
            environment="demonstration",
            service_id="service",
            listen=url.removeprefix("http://"),
            external_url=url,
            insecure_cookies=True,
            heartbeat_interval_seconds=5,
        )
        make_key_set(
            settings.keys_dir,
            origin=settings.origin,
            service_id=settings.service_id,
            created_ms=SystemClock().now_ms(),
            simulated=True,
        )
        return build_services(settings, allow_simulated=True), listening

    async def make_gateway(self, services: Services, tools_url: str, service_url: str) -> Gateway:
        """Introduce a gateway to the service and configure it for the day's agents and servers."""
        home = self.folder / "gateway"
        home.mkdir(mode=0o700)
        now_ms = SystemClock().now_ms()
        signing = generate_key("enforcer", ED25519, "gateway-1", created_ms=now_ms, simulated=True)
        save_key(signing, home / "signing.json")
        save_key(
            generate_key("spool", "xsalsa20-poly1305", "gateway-1", created_ms=now_ms, simulated=True),
            home / "spool.json",
        )
        assert signing.public_key is not None
        admin = API(service_url, self.tokens["admin"])
        body = {"enforcer_id": "gateway-1", "public_key": encode_base64(signing.public_key)}
        introduced = await admin("POST", "/v1/enforcers", json=body)
        await admin.close()
        token_file = home / "service.token"
        token_file.touch(mode=0o600)
        token_file.write_text(introduced["token"], encoding="utf-8")
        config = GatewayConfig.model_validate(
            {
                "enforcer_id": "gateway-1",
                "log_id": services.identity.log_id,
                "tenant": services.identity.tenant,
                "environment": services.identity.environment,
                "zone": str(_ZONE),
                "state_directory": str(home / "state"),
                "service": {"url": service_url, "token": f"file:{token_file}"},
                "keys": {
                    "signing": f"file:{home / 'signing.json'}",
                    "pseudonym": f"file:{services.settings.keys_dir / 'pseudonym.json'}",
                    "spool": f"file:{home / 'spool.json'}",
                },
                "networks": [{"label": label, "cidrs": [cidr]} for label, cidr in NETWORKS.items()],
                "principals": [self._principal(key) for key in (agent.key for agent in AGENTS)],
                "servers": [{"name": name, "url": f"{tools_url}/{name}/mcp"} for name in _SERVERS],
                "recording": {"heartbeat_seconds": 1},
                "bundles": {"poll_seconds": 1},
                # The simulated day has pauses of hours, which the clients' idle sessions must not notice.
                "sessions": {"idle_seconds": 86_400},
            }
        )
        return make_gateway(config, None, clock=self.clock, evaluator=services.evaluator)

    def _principal(self, key: str) -> dict[str, object]:
        agent = next(agent for agent in AGENTS if agent.key == key)
        self.agent_tokens[key] = secrets.token_urlsafe(32)
        return {
            "token_sha256": hashlib.sha256(self.agent_tokens[key].encode()).hexdigest(),
            "agent": agent.agent,
            "user": agent.user,
            "roles": list(agent.roles),
            "mfa": agent.mfa,
        }

    async def activate_policy(self, service_url: str) -> None:
        """Publish the day's bundle and a changed one; have another person approve and activate the first."""
        admin = API(service_url, self.tokens["admin"])
        for name in ("demo", "demo-extended-hours"):
            bundle = read_library_bundle(name)
            published = await admin("POST", "/v1/bundles", content=bundle.archive())
            self.revisions[name] = published["revision"]
        await admin.close()
        approver = API(service_url, self.tokens["approver"])
        path = f"/v1/bundles/{self.revisions['demo']}"
        await approver("POST", f"{path}/review", json={"verdict": "approved", "comment": "read, and its tests"})
        await approver("POST", f"{path}/activation", json={"comment": "for the day"})
        await approver.close()

    # --- 2: the day

    async def play(self, gateway_url: str) -> None:
        """Send the day's messages in order, each at its simulated time, and look at each answer."""
        day = steps(self.day)
        routine = 0
        async with Callers(gateway_url, self.agent_tokens) as callers:
            for number, step in enumerate(day, 1):
                if number % _PROGRESS_CALLS == 0:
                    say(f"    … {number} of {len(day)} messages sent")
                self.clock.advance_to(max(self.clock.now_ms(), _ms(step.when)))
                answer = await callers.send(step)
                self.answers.append((step, answer))
                if step.title:
                    self._tell(step, answer)
                elif not answer.meets(step):
                    self.checks.expect(f"routine call of {step.tool}", holds=False, detail=answer.told())
                else:
                    routine += 1
        self.checks.expect(f"{routine} routine calls of the working day passed", holds=routine > 0)

    def _tell(self, step: Step, answer: Answer) -> None:
        claim = f"{step.when:%a %H:%M}  {step.title}: {answer.told()}"
        self.checks.expect(claim, holds=answer.meets(step))

    # --- 3: the record of it

    async def check_record(self, services: Services, tools_url: str) -> None:
        """Compare what the servers saw and what the ledger holds with what was sent."""
        async with httpx.AsyncClient(trust_env=False) as client:
            ran: Mapping[str, int] = (await client.get(f"{tools_url}/counters")).json()
        allowed = Counter(f"{step.server}/{step.tool}" for step, _ in self.answers if step.expect == "allow")
        self.checks.expect(
            "each tool ran exactly as often as it was allowed; no denied call arrived",
            holds=dict(allowed) == dict(ran),
            detail=f"{sum(ran.values())} of {len(self.answers)} calls",
        )
        log_id = services.identity.log_id
        counts = await asyncio.to_thread(services.catalog.counts, log_id)
        decisions = await asyncio.to_thread(services.catalog.of_type, log_id, "decision")
        recorded = Counter()  # type: ignore[var-annotated]  # str
        for index in decisions:
            body = (await asyncio.to_thread(services.reader.record, index)).body
            if getattr(body, "method", None) in ("tools/call", None):
                recorded[body.enforcement] += 1  # type: ignore[union-attr]  # decisions alone
        expected = Counter(step.expect for step, _ in self.answers)
        self.checks.expect(
            "every call has its one decision record",
            holds=recorded == expected,
            detail=", ".join(f"{number} {kind}" for kind, number in sorted(recorded.items())),
        )
        self.checks.expect(
            "the log holds them with outcomes, keys, bundles, heartbeats and accesses",
            holds=counts.get("decision", 0) >= len(self.answers),
            detail=", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())),
        )

    async def audit(self, services: Services) -> None:
        """Re-read and re-derive the whole log."""
        from ledger.auditor import Auditor

        trust = parse_trust_policy((services.settings.keys_dir / "trust.policy").read_bytes())
        parts = open_for_audit(services.settings, None)
        report = await asyncio.to_thread(
            Auditor("demo", parts.tiles, trust, catalog=parts.catalog, vault=parts.vault).audit
        )
        parts.close()
        self.checks.expect(
            "the audit re-hashed, re-built and re-opened everything and found nothing",
            holds=report.clean,
            detail=", ".join(counted(number, kind) for kind, number in report.checked.items()),
        )
        published = services.publishing.published
        receipt = services.publishing.anchor_status.receipt
        self.checks.expect(
            "the checkpoint is signed with Ed25519 and ML-DSA-44, and anchored",
            holds=published is not None and receipt is not None,
            detail=f"{published.head.size} leaves, {receipt.location}" if published and receipt else "",
        )

    # --- 4: evidence and replay

    async def make_pack(self, service_url: str) -> tuple[Path, Path]:
        """Have an evidence pack made and downloaded; returns pack and report."""
        auditor = API(service_url, self.tokens["auditor"])
        order = {
            "from_ms": _ms(self.day.at(0)),
            "to_ms": _ms(self.day.end),
            "frameworks": ["soc2", "hipaa"],
            "title": "A day of agents",
            "zone": str(_ZONE),
        }
        job = await auditor("POST", "/v1/evidence-packs", json=order)
        step = ""
        while job["state"] in ("queued", "running"):
            if job["step"].partition(":")[0] != step:
                step = job["step"].partition(":")[0]
                say(f"    … {step}")
            await asyncio.sleep(0.3)
            job = await auditor("GET", f"/v1/evidence-packs/{job['job_id']}")
        if job["state"] != "done":
            raise EvidenceError(f"the pack was not made: {job['error']}")
        paths = []
        for suffix in ("zip", "pdf"):
            path = self.folder / f"evidence-pack.{suffix}"
            path.write_bytes(await auditor("GET", job["links"][suffix]))
            paths.append(path)
        await auditor.close()
        return paths[0], paths[1]

    def verify(self, pack: Path, trust_path: Path) -> None:
        """Verify the pack offline: with the auditor's trust policy, without it, and with one byte flipped."""
        trust = parse_trust_policy(trust_path.read_bytes())
        proven = verify_pack(pack, trust=trust)
        self.checks.expect("the pack is proven under the auditor's trust policy", holds=proven.status == 0,
                           detail=proven.verdict)  # fmt: skip
        alone = verify_pack(pack, trust=None)
        self.checks.expect("without a trust policy from outside it is self-asserted", holds=alone.status == 3,  # noqa: PLR2004  # the contract's status
                           detail=f"exit status {int(alone.status)}")  # fmt: skip
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        broken = verify_pack(bytes(data), trust=trust)
        named = broken.failures[0].reason if broken.failures else "nothing"
        self.checks.expect("with one bit flipped it fails, and says where", holds=broken.status != 0, detail=named)

    async def replay(self, service_url: str) -> None:
        """Replay the denial of 03:00 under the policy of then, and under a changed one."""
        responder = API(service_url, self.tokens["responder"])
        found = await responder(
            "GET", "/v1/decisions", params={"rule": "finance-business-hours", "agent": "Finance-Bot"}
        )
        decision_id = found["items"][0]["record"]["record_id"]
        for bundle, same in ((self.revisions["demo"], True), (self.revisions["demo-extended-hours"], False)):
            body = {"decision_ids": [decision_id], "bundle": bundle}
            answer = await responder("POST", "/v1/replays", json=body)
            result = answer["results"][0]
            replayed = result["replayed"]["effect"]
            claim = "the denial of 03:00 replays to the same decision under the policy of then"
            if not same:
                claim = "under the changed policy it comes out differently"
            holds = result["same"] is same and result["class"] == "exact"
            self.checks.expect(claim, holds=holds, detail=f"{result['original']['effect']} → {replayed}")
        report = await self._whole_day(responder)
        asked = report["decisions"] - report["not_asked"]
        self.checks.expect(
            "every decision of the day that a policy made comes out the same again",
            holds=asked > 0 and report["reproduced"] == report["exact"] == asked,
            detail=f"{report['reproduced']} of {asked}",
        )
        await responder.close()

    async def _whole_day(self, responder: API) -> dict[str, Any]:
        """Return the report on all decisions of the day, each made again under its own bundle."""
        order = {"from_ms": _ms(self.day.at(0)), "to_ms": _ms(self.day.end)}
        job = await responder("POST", "/v1/impacts", json=order)
        while job["state"] in ("queued", "running"):
            await asyncio.sleep(0.1)
            job = await responder("GET", f"/v1/impacts/{job['job_id']}")
        if job["state"] != "done":
            raise EvidenceError(f"the day was not made again: {job['error']}")
        report: dict[str, Any] = await responder("GET", job["links"]["json"])
        return report


async def _play(demo: Demo, *, once: bool) -> int:
    services, listening = demo.make_services()
    service_url = services.settings.external_url
    app_config = uvicorn.Config(
        create_app(services),
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    async with tool_servers(demo.folder / "servers.log") as tools_url, serving(app_config, listening):
        for role in (Role.ADMIN, Role.APPROVER, Role.AUDITOR, Role.RESPONDER):
            demo.tokens[role.value] = token_of(services, role)
        say(f"1. The service runs at {service_url}: SQLite, a directory of tiles, a directory as anchor")
        await demo.activate_policy(service_url)
        gateway = await demo.make_gateway(services, tools_url, service_url)
        await gateway.start()
        try:
            gateway_socket = listen(_PORT + 1)
            gateway_url = f"http://127.0.0.1:{gateway_socket.getsockname()[1]}"
            gateway_config = gateway.server_config(host="127.0.0.1", port=0)
            gateway_config.timeout_graceful_shutdown = STOP_SECONDS
            async with serving(gateway_config, gateway_socket):
                say(f"   MCP servers of the official SDK at {tools_url}, behind the gateway at {gateway_url}")
                say(f"2. {demo.day.start:%A, %d %B %Y}, simulated: agents call")
                await demo.play(gateway_url)
                await _evidence(demo, services, tools_url, service_url)
                if demo.checks.failed:
                    say(f"\n{len(demo.checks.failed)} claims did not hold:")
                    for claim in demo.checks.failed:
                        say(f"  ✗ {claim}")
                    return 1
                demo.told = True
                if once:
                    say("\nEverything held.")
                    return 0
                _invite(demo, services, gateway_url)
                await asyncio.Event().wait()
        finally:
            await gateway.stop()
    return 0


async def _evidence(demo: Demo, services: Services, tools_url: str, service_url: str) -> None:
    say("3. What the ledger holds")
    # The enforcer's heartbeat must pass the end of the period, or the tail of its stream is unknown.
    demo.clock.advance_to(_ms(demo.day.end) + 60_000)
    await asyncio.sleep(1.5)
    await demo.check_record(services, tools_url)
    await services.publishing.wait_for(await asyncio.to_thread(services.sequenced_size), WAIT_SECONDS)
    await demo.audit(services)
    say("4. Evidence")
    pack, report = await demo.make_pack(service_url)
    trust = demo.folder / "trust.policy"
    shutil.copyfile(services.settings.keys_dir / "trust.policy", trust)
    await asyncio.to_thread(demo.verify, pack, trust)
    await demo.replay(service_url)
    say()
    say(f"   report  {shown_path(report)}")
    say(f"   pack    {shown_path(pack)}")
    say(f"   verify  {program()} verify {shown_path(pack)} --trust {shown_path(trust)}")


def _invite(demo: Demo, services: Services, gateway_url: str) -> None:
    url = services.settings.external_url
    say("\n5. It stays up. Have a look:")
    say(f"   dashboard    {url}/login/link/{services.login_links.issue(demo.tokens['auditor'])}")
    say(f"   API          {url}/docs/api")
    header = f"Authorization: Bearer {demo.tokens['auditor']}"
    say(f"   decisions    curl -H '{header}' '{url}/v1/decisions?enforcement=deny'")
    say(f"   gateway      {gateway_url}/servers/finance/mcp")
    say("   your own MCP server behind a gateway of its own (say, at http://127.0.0.1:9000/mcp):")
    home = shown_path(demo.folder / "my-gateway")
    say(f"     export TALLYSTICK_URL={url} TALLYSTICK_TOKEN={demo.tokens['admin']}")
    say(f"     {program()} gateway init {home} --id gateway-2 --agent my-agent --role finance \\")
    say(f"       --keys-dir {shown_path(services.settings.keys_dir)} --server finance=http://127.0.0.1:9000/mcp \\")
    say(f"       --listen {_OWN_GATEWAY}")
    say(f"     {program()} gateway --config {home}/gateway.yaml --listen {_OWN_GATEWAY}")
    say(
        "   The demo's policy knows only its own tools: calls of yours are denied and recorded (no_permit). Write rules"
    )
    say("   (docs/policies.md), or set `mode: observe` for the server in gateway.yaml to see what would be denied.")
    say("   Ctrl-C ends it.")


async def _play_until_stopped(demo: Demo, *, once: bool) -> int:
    """Play; a signal ends it, and in order all that it started.

    The signals are taken even where they were ignored: a shell starts what it runs in the background without Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    playing = asyncio.create_task(_play(demo, once=once))
    signalled: list[int] = []

    def stop(number: int) -> None:
        signalled.append(number)
        # Whoever says it twice does not want to wait: the second signal does what it does by default.
        let_go()
        playing.cancel()

    def let_go() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await playing
    except asyncio.CancelledError:
        if not signalled:
            raise
        say("\nThe demonstration ends." if demo.told else "\nThe demonstration was stopped before its end.")
        return 0 if demo.told else _BY_SIGNAL + signalled[0]
    finally:
        let_go()


def run_demo(folder: Path, *, once: bool, checks: Checks | None = None) -> int:
    """Run the demonstration.

    Args:
        folder: Where to keep its files; emptied first if an earlier one made it.
        once: Leave after the evidence, instead of staying up until Ctrl-C.
        checks: Collects its claims, if somebody wants to look at them.

    Returns:
        0 if every claim held, 1 if one did not, 128 plus the signal's number if one came before all had been shown.

    Raises:
        ConfigError: The folder exists and is not the demonstration's.
        LedgerError: A part failed.
    """
    folder = folder.resolve()
    fresh(folder)
    day = _past_wednesday()
    clock = SimulatedClock(_ms(day.at(8, 55)))
    demo = Demo(folder=folder, day=day, clock=clock, checks=Checks() if checks is None else checks)
    say("Tallystick, a demonstration. SIMULATED: its keys and its gateway's clock are made up; all else is real.\n")
    return asyncio.run(_play_until_stopped(demo, once=once))
