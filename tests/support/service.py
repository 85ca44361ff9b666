"""A real service on a free port of 127.0.0.1, with demonstration keys: for every test that wants to talk HTTP to it.

The service runs in a thread with its own event loop, so that a test may be plain code, `asyncio.run`, or a browser.
Whoever starts it stops it; the `service` fixture of the integration tests does both.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import msgspec
import uvicorn
from starlette.types import ASGIApp

from ledger.approvals import Terms, binding_of
from ledger.bodies import AccessEvent, Approval, Body, BundleReference, Decision, Outcome
from ledger.bodies_drift import Drift
from ledger.clock import Clock, SystemClock
from ledger.commitments import SALT_BYTES
from ledger.notes import encode_base64
from ledger.ports import Opening, commit
from ledger.records import Record, encode_record, new_record_id
from policies.bundles import Bundle
from policies.engines.cedar import CedarEngine
from policies.model import encode_request
from service.app import create_app
from service.auth import Role, token_digest
from service.keyset import make_key_set
from service.persons import CONSOLE, PERSON_SECONDS, Person
from service.settings import Settings, load_settings
from service.wiring.assembly import build_services
from service.wiring.services import Services
from tests.support.ledger import LOG_ID, Enforcer, make_decision
from tests.support.policies import make_request

ORIGIN = "service.example/acme"
_START_SECONDS = 30.0

_T = TypeVar("_T")


class EnforcerClient:
    """An introduced enforcer: signs records, numbers them, and posts them with its token.

    Attributes:
        enforcer: Numbers and signs.
        token: The enforcer's token.
    """

    def __init__(self, service: ServedLog, enforcer_id: str, *, seed: int) -> None:
        identity = service.services.identity
        self.enforcer = Enforcer(enforcer_id, identity.log_id, seed=seed, epoch=f"{seed:032x}", tenant=identity.tenant)
        public_key = encode_base64(bytes(self.enforcer.key.verify_key))
        with service.client(Role.ADMIN) as admin:
            answer = admin.post("/v1/enforcers", json={"enforcer_id": enforcer_id, "public_key": public_key})
        answer.raise_for_status()
        self.token: str = answer.json()["token"]
        self._service = service
        self._clock = service.services.clock

    def record(self, body: Body, *, time_ms: int | None = None) -> Record:
        """Return a signed record with the next number; its time is the service's unless one is given."""
        self.enforcer.time_ms = (self._clock.now_ms() if time_ms is None else time_ms) - 1
        return self.enforcer.record(body)

    def flag(self, **members: Any) -> Record:
        """Post a departure, whose id is its record's, and return the record."""
        record_id = new_record_id(self._clock.now_ms(), secrets.token_bytes(10))
        self.enforcer.time_ms = self._clock.now_ms() - 1
        record = self.enforcer.record(Drift(action="flagged", drift_id=record_id, **members), record_id=record_id)
        self.post([(record, ())]).raise_for_status()
        return record

    @staticmethod
    def spell(submissions: Sequence[tuple[Record, Sequence[Opening]]]) -> bytes:
        """Return records with their openings as the lines of a batch."""
        lines = [
            msgspec.json.encode({"record": msgspec.Raw(encode_record(record)), "openings": _openings(openings)})
            for record, openings in submissions
        ]
        return b"\n".join(lines)

    def post(
        self, submissions: Sequence[tuple[Record, Sequence[Opening]]], *, query: str = "", **headers: str
    ) -> httpx.Response:
        """Post records with their openings, as one batch, and return the answer whatever it is."""
        kind = {"content-type": "application/x-ndjson", **headers}
        with self._service.client(token=self.token) as client:
            return client.post(f"/v1/decisions{query}", content=self.spell(submissions), headers=kind)

    def decide(self, *, time_ms: int | None = None, **changes: object) -> str:
        """Record one decision (`make_decision`) and return its id."""
        return self.decide_many([changes], time_ms=time_ms)[0]

    def decide_many(self, decisions: Sequence[dict[str, Any]], *, time_ms: int | None = None) -> list[str]:
        """Record decisions in one batch and return their ids."""
        batch = []
        for changes in decisions:
            body, openings = make_decision(**changes)
            kept = [opening for opening in openings if getattr(body, opening.field) is not None]
            batch.append((self.record(body, time_ms=time_ms), kept))
        self.post(batch).raise_for_status()
        return [record.record_id for record, _ in batch]

    def decide_by(self, bundle: Bundle | None, *, effect: str = "PERMIT", rules: tuple[str, ...] = ()) -> str:
        """Record what a bundle said, truly or not, of a request that can be replayed; None if none was asked.

        Args:
            bundle: The bundle.
            effect: What it said.
            rules: Which rules spoke.
        """
        commitment, opening = commit("request", secrets.token_bytes(SALT_BYTES), encode_request(make_request()))
        changes: dict[str, Any] = {"bundle": None, "request": None}
        if bundle is not None:
            revision, engine = bundle.revision, CedarEngine()
            reference = BundleReference(
                name=bundle.manifest.name, revision=revision, engine="cedar", engine_version=engine.version
            )
            changes = {"bundle": reference, "request": commitment}
        body, openings = make_decision(
            agent="Bot",
            server="shop",
            tool="sell",
            decision=effect,
            enforcement="allow" if effect == "PERMIT" else "deny",
            rules=rules,
            failed_condition=None if effect == "PERMIT" else next(iter(rules), None),
            **changes,
        )
        record = self.record(body)
        self.post([(record, [openings[0], *([opening] if bundle else [])])]).raise_for_status()
        return record.record_id

    def hold(self, decision_id: str, *, seconds: float = 900, binding: str | None = None, **changes: Any) -> str:
        """Record that a decision of this enforcer is held, truly bound unless told otherwise; return its approval id.

        Args:
            decision_id: The decision.
            seconds: For how long.
            binding: What is said to be bound.
            changes: Other terms than one person of any role.
        """
        services = self._service.services
        decision = services.reader.record(services.catalog.index_of(self._service.log_id, decision_id)).body
        assert isinstance(decision, Decision)
        now_ms = self._clock.now_ms()
        terms = Terms(
            approval_id=new_record_id(now_ms, secrets.token_bytes(10)),
            expires_ms=now_ms + int(1000 * seconds),
            needed=changes.get("needed", 1),
            roles=changes.get("roles", ()),
        )
        body = Approval(
            approval_id=terms.approval_id,
            decision_id=decision_id,
            action="held",
            binding=binding or binding_of(decision_id, decision, terms),
            expires_ms=terms.expires_ms,
            needed=terms.needed,
            roles=terms.roles,
            cause="policy",
        )
        self.post([(self.record(body), ())]).raise_for_status()
        return terms.approval_id

    def step(self, approval_id: str, action: Any, **changes: Any) -> httpx.Response:
        """Record a step of this enforcer's, truly or not, and return the answer."""
        call = next(one for one in self._service.services.approvals.look() if one.approval_id == approval_id)
        members = {"decision_id": call.decision_id, "binding": call.binding, **changes}
        return self.post([(self.record(Approval(approval_id=approval_id, action=action, **members)), ())])

    def complete(self, decision_id: str, decision: Decision | None = None, **changes: Any) -> str:
        """Record the outcome of a decision and return the outcome's record id."""
        session = decision.session if decision else "5" * 32
        fields = {"decision_id": decision_id, "status": "completed", "session": session, "latency_us": 1500}
        record = self.record(Outcome(**{**fields, **changes}))
        self.post([(record, ())]).raise_for_status()
        return record.record_id


def _openings(openings: Sequence[Opening]) -> list[dict[str, str]]:
    return [
        {"field": item.field, "salt": encode_base64(item.salt), "payload": encode_base64(item.payload)}
        for item in openings
    ]


class ServerThread:
    """An application that answers, in a thread with its own event loop.

    Attributes:
        url: Where it answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.url = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="service")

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve()

        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001  # whatever it was, the test's thread must see it
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def __enter__(self) -> Self:
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(_START_SECONDS / 0.02)):
            if self._server.started or self._ended.done():
                break
            waited.wait(0.02)
        if not self._server.started:
            self.__exit__()
            raise RuntimeError("the service did not start; its log says why")
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._ended.result()

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]], seconds: float = _START_SECONDS) -> _T:
        """Run a coroutine in the service's event loop and return what it returns."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(seconds)

    def stranger(self) -> httpx.Client:
        """Return an HTTP client that speaks for nobody."""
        # There is no TLS here, and to load the certificates for it would take longer than the requests.
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=False)

    def browser_client(self) -> httpx.Client:
        """Return an HTTP client that keeps cookies and says where its forms come from, as a browser does."""
        return httpx.Client(base_url=self.url, headers={"origin": self.url}, timeout=30, trust_env=False)


class ServedLog:
    """One log of a server: who speaks for it, and what is in it.

    Attributes:
        server: Where it is served.
        services: Its parts. They belong to the service's event loop; what is synchronous in them may be used here.
        log_id: Its id.
    """

    server: ServerThread

    def __init__(self, services: Services) -> None:
        self.services = services
        self.log_id = services.identity.log_id

    def token(self, role: Role, name: str | None = None, *, lifetime_days: int | None = None) -> str:
        """Issue a token of a role that is not an enforcer's: a person's where the role is for people, else a machine's.

        Args:
            role: Responders, approvers and administrators are people here who logged in at the console.
            name: Who; one name is one person.
            lifetime_days: How long it counts. With it, the token is a machine's.
        """
        if role in (Role.RESPONDER, Role.APPROVER, Role.ADMIN) and lifetime_days is None:
            token = self.person_token(role, name or f"test-{role}")
            # That it is used is a record, once: here it counts as made, so that no test finds one more than its own.
            self.services.people._seen[token_digest(token)] = None
            return token
        return self.machine_token(role, name, lifetime_days=lifetime_days)

    def person_token(self, role: Role, name: str, *, seconds: int = PERSON_SECONDS) -> str:
        """Issue the token of a person who is known at the console alone."""
        method = "break_glass" if self.services.settings.oidc_issuer else "console"
        person = Person(issuer=CONSOLE, subject=name, name=name, method=method)
        return self.services.people.issue(person, role, seconds=seconds)[0]

    def machine_token(self, role: Role, name: str | None = None, *, lifetime_days: int | None = None) -> str:
        """Issue an API token."""
        return self.services.tokens.issue(self.log_id, role, name or f"test-{role}", lifetime_days=lifetime_days)

    def client(self, role: Role = Role.AUDITOR, *, token: str | None = None) -> httpx.Client:
        """Return an HTTP client that speaks for a role, or with a given token."""
        client = self.server.stranger()
        client.headers["authorization"] = f"Bearer {token or self.token(role)}"
        return client

    def publish(self, bundle: Bundle, author: str = "ann") -> str:
        """Publish a bundle as its author does, and return its revision."""
        with self.client(token=self.token(Role.ADMIN, author)) as client:
            client.post("/v1/bundles", content=bundle.archive()).raise_for_status()
        return bundle.revision

    def put_in_force(self, bundle: Bundle, *, author: str = "ann", approver: str = "bob") -> str:
        """Publish a bundle whose tests pass, have somebody else approve and activate it, and return its revision."""
        revision = self.publish(bundle, author)
        with self.client(token=self.token(Role.APPROVER, approver)) as client:
            client.post(f"/v1/bundles/{revision}/review", json={"verdict": "approved"}).raise_for_status()
            client.post(f"/v1/bundles/{revision}/activation", json={}).raise_for_status()
        return revision

    def enforcer(self, enforcer_id: str = "gateway-1", *, seed: int = 21) -> EnforcerClient:
        """Introduce an enforcer; each needs a seed of its own."""
        return EnforcerClient(self, enforcer_id, seed=seed)

    def login_url(self, role: Role = Role.AUDITOR) -> str:
        """Return a one-time login link that leads to this service."""
        return f"{self.server.url}/login/link/{self.services.login_links.issue(self.token(role))}"

    def wait_until_published(self, size: int | None = None) -> None:
        """Wait until a checkpoint covers ``size`` leaves, or all that there are."""
        wanted = self.services.sequenced_size() if size is None else size
        self.server.run(lambda: self.services.publishing.wait_for(wanted, _START_SECONDS))

    def access_events(self, action: str | None = None) -> list[AccessEvent]:
        """Return the access records of the log, in order."""
        indexes = self.services.catalog.of_type(self.log_id, "access")
        bodies = [self.services.reader.record(index).body for index in indexes]
        return [body for body in bodies if isinstance(body, AccessEvent) and action in (None, body.action)]


class RunningService(ServerThread, ServedLog):
    """A service of one log that answers; made by `start_service` alone."""

    def __init__(self, services: Services) -> None:
        ServerThread.__init__(self, create_app(services))
        ServedLog.__init__(self, services)
        self.server = self


def make_settings(root: Path, **changes: object) -> Settings:
    """Return settings for a service in a folder: quick checkpoints, cookies over plain HTTP."""
    values: dict[str, object] = {
        "data_dir": root / "data",
        "keys_dir": root / "keys",
        "log_id": LOG_ID,
        "tenant": "acme",
        "environment": "test",
        "origin": ORIGIN,
        "checkpoint_interval_seconds": 0.1,
        "insecure_cookies": True,
    }
    return load_settings(**{**values, **changes})


def start_service(
    root: Path, *, clock: Clock | None = None, migrate: bool = False, **changes: object
) -> RunningService:
    """Return a service in a folder, to be used as a context manager; keys are made if there are none.

    Args:
        root: Its data and keys.
        clock: The system's if None.
        migrate: Bring a PostgreSQL schema up to date first.
        changes: Settings that differ from `make_settings`.
    """
    settings = make_settings(root, **changes)
    clock = clock or SystemClock()
    if not settings.keys_dir.exists():
        make_key_set(
            settings.keys_dir,
            origin=settings.origin,
            service_id=settings.service_id,
            created_ms=clock.now_ms(),
            simulated=True,
        )
    return RunningService(build_services(settings, clock=clock, allow_simulated=True, migrate=migrate))


def keep_database_and_keys(folder: Path) -> None:
    """Copy the database and the subject keys of an installation that does not run."""
    shutil.copytree(folder / "keys" / "subjects", folder / "kept-keys")
    shutil.copytree(folder / "data", folder / "kept-data")


def put_database_and_keys_back(folder: Path) -> None:
    """Put back what `keep_database_and_keys` copied; tiles and anchor stay as they are."""
    for path in (folder / "data").glob("ledger.db*"):
        path.unlink()
    for path in (folder / "kept-data").glob("ledger.db*"):
        shutil.copy(path, folder / "data")
    shutil.rmtree(folder / "keys" / "subjects")
    shutil.move(folder / "kept-keys", folder / "keys" / "subjects")
