"""What is logged of an error: where and what kind, never its message."""

from __future__ import annotations

import logging

import pytest
from structlog.testing import capture_logs

from service.failures import LibraryHandler, describe

SECRET = "Bearer ts1.acme.secret"


def _fail() -> None:
    try:
        try:
            raise KeyError(SECRET)  # noqa: TRY301  # a chain of errors is the point
        except KeyError as error:
            raise ValueError(SECRET) from error
    except ValueError:
        raise RuntimeError(SECRET)  # noqa: B904  # a context, not a cause, is the point


def caught() -> RuntimeError:
    with pytest.raises(RuntimeError) as found:
        _fail()
    return found.value


def test_an_error_is_described_by_class_causes_and_frames_without_any_message():
    told = describe(caught())
    assert told["error"] == "RuntimeError"
    assert told["causes"] == ["ValueError", "KeyError"]
    assert told["frames"][-1].endswith("_fail")
    assert SECRET not in str(told)


def test_a_frame_names_three_parts_of_its_file_and_no_home():
    frame = describe(caught())["frames"][-1]
    path = frame.partition(":")[0]
    assert path == "unit/service/test_failures.py"


def test_an_error_that_leads_to_itself_is_described_and_ends():
    first, second = ValueError(SECRET), ValueError(SECRET)
    first.__cause__, second.__cause__ = second, first
    assert len(describe(first)["causes"]) == 8


def test_a_deep_stack_is_cut_to_its_innermost_frames():
    def deeper(levels: int) -> None:
        if levels == 0:
            raise ValueError(SECRET)
        deeper(levels - 1)

    with pytest.raises(ValueError, match="Bearer") as found:
        deeper(50)
    assert len(describe(found.value)["frames"]) == 12


@pytest.fixture
def library() -> logging.Logger:
    """Return a library's logger whose messages go our way alone."""
    logger = logging.Logger("tests.some.library")  # noqa: LOG001  # not in the tree, where pytest listens too
    logger.addHandler(LibraryHandler())
    return logger


def test_a_librarys_message_is_passed_on_with_its_first_line_alone(library):
    with capture_logs() as logged:
        library.warning("it failed\nfuture: exception=%r", SECRET)
    assert logged == [
        {"event": "library_message", "log_level": "warning", "logger": "tests.some.library", "said": "it failed"}
    ]


def test_a_librarys_exception_is_passed_on_without_its_message_or_traceback(library):
    with capture_logs() as logged:
        try:
            _fail()
        except RuntimeError:
            library.exception("Exception in ASGI application\n")
    assert logged[0]["error"] == "RuntimeError"
    assert SECRET not in str(logged)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [("%d of them", ("many",)), ("%s and %s", ("one",)), ("%(name)s", ({"other": 1},)), ("%q", ("x",))],
)
def test_a_message_that_cannot_be_put_together_is_passed_on_as_it_is(library, message, arguments):
    with capture_logs() as logged:
        library.error(message, *arguments)
    assert [entry["said"] for entry in logged] == [message]


@pytest.mark.parametrize("level", [logging.WARNING + 1, logging.ERROR + 5, logging.CRITICAL + 50])
def test_a_level_of_a_librarys_own_is_passed_on(library, level):
    with capture_logs() as logged:
        library.log(level, "its own level")
    assert [entry["said"] for entry in logged] == ["its own level"]
