"""Tiles that are put several at a time: bounded, all or an error, and nothing under way when it has ended."""

from __future__ import annotations

import threading

import pytest

from ledger.concurrent_puts import ConcurrentPuts
from ledger.errors import ConflictError, StateError, StorageError

LONGEST_SECONDS = 20


class Files:
    """Takes files, and counts how many puts are under way."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.begun: list[str] = []
        self.under_way = self.most = 0
        self.lock = threading.Lock()

    def put(self, path: str, data: bytes) -> None:
        with self.lock:
            self.begun.append(path)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            self.work(path)
        finally:
            with self.lock:
                self.under_way -= 1
        self.data[path] = data

    def work(self, path: str) -> None:
        """For tests that let something happen there."""


def files_named(count: int) -> list[tuple[str, bytes]]:
    return [(f"tile/{number}", b"%d" % number) for number in range(count)]


@pytest.mark.parametrize("at_once", [1, 2, 16])
@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 100])
def test_every_file_is_put_once_and_is_there_at_the_end(at_once, count):
    files = Files()
    with ConcurrentPuts(files.put, at_once=at_once) as puts:
        for path, data in files_named(count):
            puts.put(path, data)
    assert files.data == dict(files_named(count))
    assert sorted(files.begun) == sorted(files.data)
    assert files.most <= at_once


def test_so_many_are_under_way_at_once_and_no_more():
    met = threading.Barrier(4)

    class Together(Files):
        def work(self, _path: str) -> None:
            met.wait(LONGEST_SECONDS)  # ends when four are here at the same time, and never with fewer

    files = Together()
    with ConcurrentPuts(files.put, at_once=4) as puts:
        for path, data in files_named(12):
            puts.put(path, data)
    assert files.most == 4


def test_one_at_a_time_is_in_order_and_in_the_thread_that_asks():
    class Watched(Files):
        def work(self, _path: str) -> None:
            assert threading.current_thread() is threading.main_thread()

    files = Watched()
    with ConcurrentPuts(files.put, at_once=1) as puts:
        for path, data in files_named(5):
            puts.put(path, data)
    assert files.begun == [path for path, _ in files_named(5)]


class Failing(Files):
    """Fails at the fourth file, while the others take until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = threading.Event()

    def work(self, path: str) -> None:
        if path == "tile/3":
            self.failed.set()
            raise ConflictError("other bytes stand there")
        self.failed.wait(LONGEST_SECONDS)


@pytest.mark.parametrize("count", [4, 100])
def test_an_error_is_raised_when_nothing_is_under_way_any_more(count):
    files = Failing()

    def put_all() -> None:
        with ConcurrentPuts(files.put, at_once=4) as puts:
            for path, data in files_named(count):
                puts.put(path, data)

    with pytest.raises(ConflictError, match="other bytes"):
        put_all()
    assert files.under_way == 0
    assert len(files.begun) <= 3 + 1 + 4  # those beside it, itself, and what had room before the error was seen


def test_what_the_block_raises_goes_through_once_nothing_is_under_way():
    files = Files()

    def break_off() -> None:
        with ConcurrentPuts(files.put, at_once=4) as puts:
            puts.put("tile/0", b"0")
            raise StateError("the entries cannot be read")

    with pytest.raises(StateError):
        break_off()
    assert files.data == {"tile/0": b"0"}
    assert files.under_way == 0


def test_the_last_put_may_be_the_one_that_fails():
    class Last(Files):
        def work(self, path: str) -> None:
            if path == "tile/2":
                raise StorageError("no answer")

    files = Last()

    def put_all() -> None:
        with ConcurrentPuts(files.put, at_once=4) as puts:
            for path, data in files_named(3):
                puts.put(path, data)

    with pytest.raises(StorageError, match="no answer"):
        put_all()
