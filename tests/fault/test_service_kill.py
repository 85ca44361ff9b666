"""``kill -9`` of a real service in a load of appends over HTTP, twenty times over on one folder.

Whatever was answered with 201 is there afterwards, at the index that was told, with exactly the bytes that were sent,
under every later checkpoint; nothing has two indexes, and the audit finds nothing. What was sent and not answered is
sent again, as an enforcer does it.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.commands import Installation
from tests.support.load import Load

KILLS = 20


@pytest.fixture
def load(tmp_path: Path) -> Load:
    installation = Installation(folder=tmp_path)
    installation.make_keys()
    with installation.serve() as served:
        made = Load(installation, installation.token("auditor"))
        admin = installation.token("admin")
        for sender in made.senders:
            sender.introduce(served.url, admin)
    return made


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_service_that_is_killed_twenty_times_in_a_load_of_appends_loses_and_doubles_nothing(load):
    for number in range(KILLS):
        load.append_until_killed(number)
    with load.installation.serve() as served:
        # Whatever was under way at the last death is sent once more.
        load.append(served.url, lambda: True, lambda: None)
        load.check_history(load.check(served.url))
        served.started.signal(signal.SIGTERM)
        assert served.started.wait() == 0
    assert any(sender.repeated for sender in load.senders), "no death fell between a commit and its answer"
    report = json.loads(load.installation.do("audit", "--json"))
    assert report["findings"] == report["not_checked"] == []
    assert report["checked"]["entries"] == report["size"]
    streams = {stream["enforcer_id"]: stream for stream in report["streams"]}
    for sender in load.senders:
        stream = streams[sender.enforcer.enforcer_id]
        assert stream["records"] == sender.enforcer.seq == len(sender.acknowledged)
        assert stream["missing"] == []
