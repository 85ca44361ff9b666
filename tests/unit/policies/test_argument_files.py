"""File paths of a call: one plain spelling each, or none at all."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import PolicySyntaxError
from policies.argument_files import MAX_PATH_CHARS, MAX_PATH_PARTS, folded, lineage
from policies.parameters import MAX_PATH_NAMES, ParameterError, parse_parameters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/", ("/",)),
        ("/data", ("/data", "/")),
        ("/data/", ("/data", "/")),
        ("/data/a.txt", ("/data/a.txt", "/data", "/")),
        ("src/main.py", ("src/main.py", "src", ".")),
        ("/data/.git/HEAD", ("/data/.git/HEAD", "/data/.git", "/data", "/")),
        ("/data/..a", ("/data/..a", "/data", "/")),
        ("/data/10:30.log", ("/data/10:30.log", "/data", "/")),
        ("/Übersicht/é", ("/Übersicht/é", "/Übersicht", "/")),
    ],
)
def test_a_plain_path_is_itself_and_the_folders_above_it(text, expected):
    assert lineage(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../etc/passwd",
        "/data/../etc/passwd",
        "/data/..",
        "/data/./a",
        "//data",
        "/data//a",
        "/data/a//",
        "/data/...",
        "/data/secret.",
        "/data/secret ",
        "/data/ secret",
        "/data/%2e%2e/etc",
        "/data/%2fetc",
        "/data/%00",
        "/data\\..\\etc",
        "C:\\data",
        "C:/data",
        "C:data",
        "file:///data/a",
        "~/data",
        "~root/data",
        "-rf",
        "/data/a\x00.txt",
        "/data/a\n",
        "\t/data",
        " /data",
        "/data/a\u200bb",
        "/data/\u202etxt.a",
        "/data/a\u2028b",
        "/data/\ue000",
        "/data/\ud800",
        "/data/\uff0e\uff0e/etc",
        "/data\uff0fetc",
        "/data/\u2025/etc",
        "/data/\u2100",
        "/data/\uff3cetc",
        "/data/\uff052e",
        "/data/e\u0301",
        "/" + "a" * MAX_PATH_CHARS,
        "/a" * (MAX_PATH_PARTS + 1),
    ],
)
def test_no_other_spelling_is_a_path(text):
    assert lineage(text) is None


def test_a_path_at_the_limits_is_one():
    assert len(lineage("/a" * MAX_PATH_PARTS) or ()) == MAX_PATH_PARTS + 1
    assert lineage("/" + "a" * (MAX_PATH_CHARS - 1)) is not None


def test_no_name_that_begins_as_a_folder_does_lies_in_it():
    assert "/data" not in (lineage("/database/a") or ())
    assert "/data" not in (lineage("/data-old") or ())
    assert "/data" not in (lineage("/Data/a") or ())
    assert "/data" not in (lineage("/d\u0430ta/a") or ())  # a Cyrillic letter


@given(st.text(st.sampled_from("ab./%~\\ \u00e9\uff0e"), max_size=24))
def test_every_folder_is_above_the_one_before_it_and_plain_by_itself(text):
    found = lineage(text)
    if found is None:
        return
    assert found[-1] in {"/", "."}
    for path, above in pairwise(found):
        assert above in {"/", "."} or path.startswith(f"{above}/")
    assert all(above == "." or lineage(above) == found[place:] for place, above in enumerate(found))
    assert not {".", ".."} & set(text.strip("/").split("/"))


def test_folding_knows_no_upper_case():
    assert folded("/Data/STRASSE") == folded("/data/stra\u00dfe") == "/data/strasse"


# --- as a parameter -------------------------------------------------------------------------------------------------


def value(arguments: object, **declaration: object) -> object:
    document = {"parameters": [{"name": "x", "type": "path", "paths": ["path", "paths[*]"], **declaration}]}
    parameters = parse_parameters(json.dumps(document).encode())
    return parameters.extract("tools/call", "files", "read", json.dumps(arguments)).get("x")


def test_a_path_parameter_is_the_paths_folders():
    assert value({"path": "/data/a"}) == ("/data/a", "/data", "/")
    assert value({}) is None


def test_a_folded_path_parameter_knows_no_upper_case():
    assert value({"path": "/Data/A"}, fold=True) == ("/data/a", "/data", "/")


@pytest.mark.parametrize("path", ["/data/../a", "", 1, None, True, ["/data"], {"path": "/data"}, "/data/\uff0e\uff0e"])
@pytest.mark.parametrize("fold", [False, True])
def test_what_is_no_plain_path_is_an_error_that_does_not_tell_it(path, fold):
    with pytest.raises(ParameterError) as caught:
        value({"path": path}, fold=fold)
    assert (caught.value.reason, caught.value.parameter) == ("parameter_error", "x")


def test_several_paths_are_one_only_if_they_are_equal():
    assert value({"path": "/data/a", "paths": ["/data/a/"]}) == ("/data/a", "/data", "/")
    with pytest.raises(ParameterError, match="ambiguous"):
        value({"paths": ["/data/a", "/data/b"]})


def test_all_paths_have_the_folders_in_common_that_all_lie_in():
    assert value({"paths": ["/data/a/b", "/data/a/c"]}, combine="all") == ("/data/a", "/data", "/")
    assert value({"paths": ["/data/a", "/etc/passwd"]}, combine="all") == ("/",)
    assert value({"paths": ["/data/a", "data/a"]}, combine="all") == ()


def test_any_path_brings_the_folders_that_it_lies_in():
    assert set(value({"paths": ["/data/a", "/etc/b"]}, combine="any")) == {"/data/a", "/data", "/", "/etc/b", "/etc"}


@pytest.mark.parametrize("combine", ["all", "any"])
def test_one_path_among_many_that_is_none_refuses_them_all(combine):
    with pytest.raises(ParameterError, match="parameter_error"):
        value({"paths": ["/data/a", "/data/../etc"]}, combine=combine)


def test_more_folders_than_the_limit_are_refused():
    paths = [f"/data/{number}" for number in range(MAX_PATH_NAMES)]
    with pytest.raises(ParameterError, match="parameter_error"):
        value({"paths": paths}, combine="any")
    assert value({"paths": paths}, combine="all") == ("/data", "/")


@pytest.mark.parametrize(
    "declaration",
    [{"type": "string", "fold": True}, {"type": "long", "combine": "all"}, {"type": "bool", "combine": "any"}],
)
def test_what_is_no_path_is_neither_folded_nor_taken_together_as_paths(declaration):
    with pytest.raises(PolicySyntaxError, match="no path"):
        value({}, **declaration)


@pytest.mark.parametrize("combine", ["min", "max", "sum", "count"])
def test_a_path_is_no_number(combine):
    with pytest.raises(PolicySyntaxError):
        value({}, combine=combine)
