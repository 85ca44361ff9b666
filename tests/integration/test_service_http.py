"""Runs `service_http.txt`: request, headers and body line by line, against a real service with more than one tile."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.auth import Role
from tests.support.ledger import LOG_ID
from tests.support.service import RunningService, start_service

SCRIPT = Path(__file__).with_name("service_http.txt")


@dataclass
class Exchange:
    """One request, and what its answer must be."""

    line: int
    method: str
    path: str
    request: dict[str, str] = field(default_factory=dict)
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    file: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {self.method} {self.path}"


def read_script(text: str) -> list[Exchange]:
    """Read a script; a line that it does not understand is an error."""
    found: list[Exchange] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if start := re.fullmatch(r"([A-Z]+) (/\S*)", line):
            found.append(Exchange(number, start[1], start[2]))
        elif given := re.fullmatch(r"> ([\w-]+): (.+)", line):
            found[-1].request[given[1]] = given[2]
        elif status := re.fullmatch(r"< (\d{3})", line):
            found[-1].status = int(status[1])
        elif header := re.fullmatch(r"< ([\w-]+): (.+)", line):
            found[-1].headers.append((header[1], header[2]))
        elif body := re.fullmatch(r"\| (.*)", line):
            found[-1].body.append(body[1])
        elif digest := re.fullmatch(r"sha256 (\S+)", line):
            found[-1].file = digest[1]
        else:
            raise ValueError(f"{SCRIPT.name}, line {number}: {line}")
    return found


EXCHANGES = read_script(SCRIPT.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Stage:
    """A running service, its log's directory, and the values that a script may name."""

    service: RunningService
    log: Path
    values: dict[str, str]

    def fill(self, text: str) -> str:
        """Put values in the place of their names."""
        return re.sub(r"\{(\w+)\}", lambda name: self.values[name[1]], text)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    root = tmp_path_factory.mktemp("http")
    # No checkpoint comes between the requests: what is asked for twice is the same.
    with start_service(root, checkpoint_interval_seconds=0.1) as service:
        enforcer = service.enforcer()
        enforcer.decide_many([{}] * 300)
        service.wait_until_published()
        service.run(service.services.publishing.stop)
        size = service.services.publishing.published.head.size
        tokens = {role.value: service.token(role) for role in Role if role is not Role.ENFORCER}
        values = {**tokens, "enforcer": enforcer.token, "size": str(size), "partial": str(size - 256)}
        yield Stage(service, root / "data" / "logs" / LOG_ID, values)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_the_answer_is_what_the_script_says(stage, exchange):
    place = stage.service.url.removeprefix("http://")
    connection = http.client.HTTPConnection(place, timeout=20)
    headers = {name: stage.fill(value) for name, value in exchange.request.items()}
    # As it stands: a client library would tidy the path up.
    connection.request(exchange.method, stage.fill(exchange.path), headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == exchange.status, body
    for name, value in exchange.headers:
        assert answer.getheader(name) == (None if value == "-" else stage.fill(value)), name
    if exchange.body:
        wanted = [line if line.startswith('{"') else stage.fill(line) for line in exchange.body]
        lines = body.decode().splitlines()
        assert ([*lines[: len(wanted) - 1], "…"] if wanted[-1] == "…" else lines) == wanted
    if exchange.file is not None:
        assert body == (stage.log / stage.fill(exchange.file)).read_bytes()
        assert body


def test_the_script_is_mostly_of_refusals_and_asks_for_every_kind_of_file():
    refused = [exchange for exchange in EXCHANGES if exchange.status >= 400]
    assert len(refused) > len(EXCHANGES) / 2
    files = {exchange.file for exchange in EXCHANGES if exchange.file}
    assert {"checkpoint", "tile/0/000", "tile/entries/000"} <= files


@pytest.mark.parametrize("text", ["GET checkpoint", "< 2000", "| ", "GET /x\n>Header: y", "sha256", "hello"])
def test_a_script_that_is_not_understood_is_an_error(text):
    with pytest.raises((ValueError, IndexError)):
        read_script(text)
