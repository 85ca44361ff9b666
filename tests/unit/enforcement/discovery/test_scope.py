"""The scope of a scan: what was given and nothing else, bounded before anything is sent."""

from __future__ import annotations

import pytest

from enforcement.discovery.scope import DEFAULT_PATHS, MAX_ENDPOINTS, Endpoint, parse_scope
from ledger.errors import ConfigError


@pytest.mark.parametrize(
    ("targets", "ports", "wanted"),
    [
        (["127.0.0.1:8000"], "1-9", ["127.0.0.1:8000"]),
        (["build.internal"], "80,8000-8001", ["build.internal:80", "build.internal:8000", "build.internal:8001"]),
        (["BUILD.internal:1", "build.internal:1"], "80", ["build.internal:1"]),
        (["10.0.0.0/30"], "80", ["10.0.0.1:80", "10.0.0.2:80"]),
        (["10.0.0.7/32"], "80", ["10.0.0.7:80"]),
        (["[::1]:8000", "2001:db8::1"], "9", ["[::1]:8000", "[2001:db8::1]:9"]),
    ],
)
def test_what_was_given_is_asked_and_nothing_else(targets, ports, wanted):
    assert [one.authority for one in parse_scope(targets, ports=ports).endpoints] == wanted


@pytest.mark.parametrize(
    "target",
    [
        *("", " ", "http://host/mcp", "host:", "host:0", "host:65536", "host:x", "host:-1", "host:\u0661", "-host"),
        *("10.0.0.1/24", "10.0.0.0/33", "10.0.0.0/", "[::1", "[::1]:", "[::1]x", "host/8", "a..b", "host:80:80"),
        *("*", "ho st", "ho\nst"),
        "a" * 64 + ".example",
    ],
)
def test_what_is_no_target_is_refused(target):
    with pytest.raises(ConfigError):
        parse_scope([target])


@pytest.mark.parametrize("ports", ["", "0", "65536", "2-1", "a", "80,", "80-", "-80", "1-2-3", "80;81", "\u0661"])
def test_what_is_no_port_is_refused(ports):
    with pytest.raises(ConfigError):
        parse_scope(["host"], ports=ports)


@pytest.mark.parametrize("path", ["", "mcp", "/a b", "/a?b", "/a#b", "/\r\nHost: x", "/" + "a" * 600, "//\x00"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ConfigError):
        parse_scope(["host"], paths=[path])


@pytest.mark.parametrize("targets", [["10.0.0.0/8"], ["::/0"], ["10.0.0.0/16", "10.1.0.0/16"]])
def test_too_much_is_refused_before_it_is_counted_out(targets):
    with pytest.raises(ConfigError, match=str(MAX_ENDPOINTS)):
        parse_scope(targets, ports="80")


def test_no_path_and_too_many_are_refused():
    for paths in ([], [f"/{number}" for number in range(65)]):
        with pytest.raises(ConfigError, match="1 to 64 paths"):
            parse_scope(["host"], paths=paths)


def test_paths_are_asked_once_and_in_order():
    assert parse_scope(["host:1"], paths=["/b", "/a", "/b"]).paths == ("/b", "/a")
    assert parse_scope([], ports="1").endpoints == ()
    assert parse_scope(["host:1"]).paths == DEFAULT_PATHS
    assert Endpoint("::1", 5).authority == "[::1]:5"
