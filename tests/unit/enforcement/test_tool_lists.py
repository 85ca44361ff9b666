"""Lists of tools are read once, and known again by their bytes alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from enforcement import tool_lists
from enforcement.answers import tool_digests
from enforcement.tool_lists import MAX_LISTS, ToolLists


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Return the lists that were read, in order."""
    lists: list[bytes] = []

    def counted(result: bytes) -> dict[str, str]:
        lists.append(result)
        return tool_digests(result)

    monkeypatch.setattr(tool_lists, "tool_digests", counted)
    return lists


def listed(*names: str, **more: object) -> bytes:
    return json.dumps({"tools": [{"name": name, **more} for name in names]}).encode()


def digests(known: ToolLists, *results: bytes) -> list[dict[str, str]]:
    async def ask() -> list[dict[str, str]]:
        return [dict(await known.digests(result)) for result in results]

    return asyncio.run(ask())


def test_a_list_as_it_was_is_not_read_again(read: list[bytes]) -> None:
    known, large = ToolLists(), listed(*map(str, range(900)), description="x" * 200)
    assert (
        digests(known, listed("a"), large, listed("a"), large)
        == [
            tool_digests(listed("a")),
            tool_digests(large),
        ]
        * 2
    )
    assert read == [listed("a"), large]


@pytest.mark.parametrize(
    "other",
    [listed("a", description="reads all"), listed("b"), listed("a") + b" ", b'{"tools":[{"name": "a"}]}', b"", b"null"],
)
def test_another_list_is_read_whatever_is_different(read: list[bytes], other: bytes) -> None:
    assert digests(ToolLists(), listed("a"), other) == [tool_digests(listed("a")), tool_digests(other)]
    assert read == [listed("a"), other]


def test_what_cannot_be_read_gives_nothing_each_time(read: list[bytes]) -> None:
    assert digests(ToolLists(), b"{", b"{") == [{}, {}]
    assert read == [b"{"]


def test_lists_that_differ_each_time_do_not_take_memory_without_end(read: list[bytes]) -> None:
    known = ToolLists()
    lists = [listed(str(number)) for number in range(MAX_LISTS + 1)]
    digests(known, *lists[:-1], lists[0], lists[-1])
    assert len(read) == MAX_LISTS + 1
    digests(known, lists[0])
    assert len(read) == MAX_LISTS + 1
    digests(known, lists[1])
    assert read[-1] == lists[1]
