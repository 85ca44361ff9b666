"""Which signals a configuration's safeguards give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enforcement.made_signals import made_signals
from tests.support.gateway import config_of

ALWAYS = {"secret", "personal", "injection", "exfiltration", "unicode", "ansi", "bomb"}
TENANTS = {"tenants": [{"tenant": "globex", "literals": ["GLX-1"]}]}
ROLES = {"roles": [{"role": "support", "topics": ["messaging"]}]}


@pytest.mark.parametrize(
    ("settings", "safeguards", "kinds"),
    [
        ({}, set(), set()),
        ({"inspection": {}}, {"inspection"}, ALWAYS),
        ({"inspection": TENANTS}, {"inspection"}, {*ALWAYS, "tenant"}),
        ({"inspection": ROLES}, {"inspection"}, {*ALWAYS, "intent"}),
        ({"inspection": {"kinds": ["secret"], **TENANTS}}, {"inspection"}, {"secret"}),
        ({"inspection": {"kinds": ["tenant"]}}, set(), set()),  # of nobody
        ({"inspection": {}, "server": {"inspection": {"enabled": False}}}, set(), set()),
        (
            {
                "inspection": {"enabled": False},
                "server": {"tools": [{"name": "a", "inspection": {"enabled": True, "kinds": ["ansi"]}}]},
            },
            {"inspection"},
            {"ansi"},
        ),
        ({"server": {"pins": "first_use"}}, {"pins"}, set()),
        ({"server": {"pins": "off"}, "profiles": {}}, {"profiles"}, set()),
    ],
)
def test_what_is_made_follows_from_the_settings_of_gateway_servers_and_tools(
    settings: dict[str, Any], safeguards: set[str], kinds: set[str], tmp_path: Path
) -> None:
    config = config_of(tmp_path, "http://127.0.0.1:1", "http://127.0.0.1:1", **settings)
    made = made_signals(config, config.servers)
    assert (made.safeguards, made.kinds) == (safeguards, kinds)
