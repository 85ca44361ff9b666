"""The library in Cedar and in Rego: whatever is asked, both decide alike.

Requests are made of the pairs' own test cases: each fact is taken from some case of the bundle, or is an edge of its
kind, so that requests come near what the rules ask. Where the languages are known to differ is said in
`known_difference`, and nowhere else.
"""

from __future__ import annotations

import functools
import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.errors import MalformedError
from policies.bundles import Bundle
from policies.directories import library_names, read_library_bundle
from policies.engine import Engine, LoadedBundle
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.engines.rego_requests import InexactNumberError, exact_document
from policies.model import DecisionRequest, WindowValue
from policies.parameters import FixedDecimal, parse_parameters
from policies.signals import FINDING_KINDS, Signals
from policies.testing import Case, case_requests, given_request, read_cases
from policies.windows import read_windows
from tests.support.scenarios import told

PAIRS = sorted({name.removesuffix("-rego") for name in library_names() if name.endswith("-rego")})
EXAMPLES = 25
ENGINES = (CedarEngine(), RegoEngine())

STRANGE = [
    *("", " ", "a/b", "*", '"', "\\", "\n", "\x00"),
    *("\u0430", "\u200b", "e\u0301", "\u00e9", "\U0001f600", "\ud800"),
]
NUMBERS = [
    *("0", "-0", "-0.0", "0.0001", "-0.0001", "0.00001", "1", "1.0", "1e0", "1e2", "1E+2", "-1", "100", "100.0001"),
    *("499.9999", "500", "500.00", "500.0001", "9007199254740991", "9007199254740992", "9007199254740993"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "1e19", "1e400"),
    *("922337203685477.5807", "922337203685477.5808", "99999999999.9999", "0.1", "0.3", "1e-400", "NaN", "Infinity"),
]
TEXTS = [
    *('""', '"500"', '"1e2"', '" 1"', '"0x1"', '"EUR"', '"eur"', '"\\ud800"'),
    *('"/data/a"', '"/data/../a"', '"/"', '"."'),
]
OTHERS = ["true", "false", "null", "[]", "{}", '[{"amount": 1}]', '["/data/a", "/data/b"]', "[[1]]"]
DOCUMENTS = ["{}", "[]", "null", "", "{", '{"amount": 1, "amount": 1}', '{"a": 1}{}', '"text"', '{"": ""}']
INTEGERS = st.one_of(st.integers(0, 2000), st.sampled_from([0, 1, 540, 1080, 2**31, 2**53 - 1]))
LISTING = ("server/discover", "tools/list", "ping", "resources/list")
NAMING = ("tools/call", "prompts/get", "resources/read")


NONE_OR_ALL = st.sampled_from([(), ("hour",), ("hour", "tool")])
SIGNALS = st.builds(
    Signals,
    inspected=st.sampled_from(["partial", "complete"]),
    inspector=st.just("test"),
    findings=st.sets(st.sampled_from([f"{kind}/any" for kind in FINDING_KINDS]), max_size=3).map(
        lambda f: tuple(sorted(f))
    ),
    finding_count=st.integers(3, 9),
    tool_state=st.sampled_from(["none", "unpinned", "first_use", "pinned", "quarantined"]),
    baseline=st.sampled_from(["none", "learning", "ready"]),
    deviations=NONE_OR_ALL,
)


@functools.cache
def bundles(pair: str) -> tuple[Bundle, Bundle]:
    return read_library_bundle(pair), read_library_bundle(f"{pair}-rego")


@functools.cache
def cases(pair: str) -> tuple[Case, ...]:
    return read_cases(bundles(pair)[0])


@functools.cache
def recorded(pair: str) -> tuple[DecisionRequest, ...]:
    return tuple(case_requests(bundles(pair)[0], cases(pair)))


@functools.cache
def values(pair: str, name: str) -> tuple[object, ...]:
    """Return what the pair's own cases say of a fact, each once."""
    found = {json.dumps(getattr(case.given, name), default=str): getattr(case.given, name) for case in cases(pair)}
    return tuple(found.values())


@functools.cache
def members(pair: str) -> tuple[str, ...]:
    """Return the first names of the paths that the pair's parameters are read from."""
    path = bundles(pair)[0].manifest.parameters
    if path is None:
        return ("amount",)
    declared = json.loads(bundles(pair)[0].files[path])["parameters"]
    return tuple(sorted({path.partition(".")[0].partition("[")[0] for item in declared for path in item["paths"]}))


def texts(pair: str, name: str) -> st.SearchStrategy[object]:
    known = [value for value in values(pair, name) if isinstance(value, str)]
    changed = [form for value in known for form in (value.upper(), value + " ", value[:1] + "\u200b" + value[1:])]
    return st.sampled_from([*known * 4, *changed, *STRANGE])


def lists(pair: str, name: str) -> st.SearchStrategy[object]:
    known = sorted({text for value in values(pair, name) for text in value})  # type: ignore[attr-defined]  # tuples
    some = st.sampled_from([*known * 4, *STRANGE])
    return st.one_of(st.sampled_from(values(pair, name)), st.lists(some, max_size=3).map(tuple))


def arguments(pair: str) -> st.SearchStrategy[object]:
    value = st.sampled_from([*NUMBERS, *TEXTS, *OTHERS])
    made = st.lists(st.tuples(st.sampled_from([*members(pair), "other"]), value), max_size=4).map(
        lambda pairs: "{" + ", ".join(f'"{name}": {text}' for name, text in pairs) + "}"
    )
    return st.one_of(st.sampled_from(values(pair, "arguments")), made, st.sampled_from(DOCUMENTS))


def windows(pair: str) -> st.SearchStrategy[object]:
    declared = read_windows(bundles(pair)[0])

    def written(name: str) -> st.SearchStrategy[WindowValue]:
        if declared.kind(name) == "bool":
            return st.booleans()
        numbers = st.one_of(st.integers(0, 30_000), st.sampled_from([0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]))
        return numbers.map(functools.partial(text_of, declared.kind(name)))

    return st.fixed_dictionaries({}, optional={name: written(name) for name in declared.windows})


def text_of(kind: str, number: int) -> str:
    return str(FixedDecimal(number)) if kind == "decimal" else str(number)


def facts(pair: str) -> dict[str, st.SearchStrategy[object]]:
    """Return what may be changed of a case, and into what."""
    numbers = {name: st.one_of(st.sampled_from([0, *values(pair, name)]), INTEGERS) for name in ("calls", "denied")}
    moments = st.one_of(st.sampled_from([0, *values(pair, "started_ms")]), INTEGERS)
    names = ("agent", "server", "tool", "authn", "address", "network", "session")
    return {
        **{name: texts(pair, name) for name in names},
        **numbers,
        "user": st.one_of(texts(pair, "user"), st.none()),
        "roles": lists(pair, "roles"),
        "tags": lists(pair, "tags"),
        "mfa": st.booleans(),
        "zone": st.sampled_from(values(pair, "zone")),
        "started_ms": moments,
        "now_ms": st.one_of(INTEGERS, st.just(1_800_000_000_000)),
        "hour": st.integers(0, 23),
        "minute": st.integers(0, 59),
        "weekday": st.integers(1, 7),
        "local_date": st.sampled_from(["2026-12-25", "2026-12-24", "2026-11-17", "2027-01-01"]),
        "arguments": arguments(pair),
        "windows": windows(pair),
        "method": st.sampled_from([*NAMING, *LISTING]),
        "signals": st.one_of(st.sampled_from(values(pair, "signals")), SIGNALS),
    }


@st.composite
def request_of(draw: st.DrawFn, pair: str) -> DecisionRequest:
    """Draw a case of the pair with a few of its facts changed; most of it stays, so that rules are reached."""
    case = draw(st.sampled_from(cases(pair)))
    changeable = facts(pair)
    names = draw(st.lists(st.sampled_from(sorted(changeable)), max_size=4, unique=True))
    asked = msgspec.structs.replace(case.given, **{name: draw(changeable[name]) for name in names})
    # Whether a method names something, or nothing, is told by the schema of Cedar alone.
    tool = (asked.tool or "tool") if asked.method in NAMING else None
    return given_request(bundles(pair)[0], msgspec.structs.replace(asked, tool=tool))


def known_difference(request: DecisionRequest) -> bool:
    """Tell whether the languages may differ: both deny then, and say why.

    Cedar knows a tool by server and name in one text, so it refuses a server with a slash. Rego reads the whole
    arguments and every window, so it refuses a number that no double holds although no rule asks for it.
    """
    if "/" in request.resource.server:
        return True
    try:
        exact_document(request.parsed_arguments())
    except InexactNumberError:
        return True
    except (MalformedError, UnicodeEncodeError):
        return False
    held = msgspec.to_builtins(request).get("state", {}).get("windows", {})
    return any(isinstance(value, str) and len(value) > 16 for value in held.values())


@functools.cache
def loaded(pair: str) -> tuple[tuple[Engine, LoadedBundle], ...]:
    return tuple((engine, engine.load(bundle)) for engine, bundle in zip(ENGINES, bundles(pair), strict=True))


@pytest.mark.parametrize("pair", PAIRS)
def test_both_languages_decide_alike_whatever_is_asked(pair):
    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
    @given(request_of(pair))
    def check(request: DecisionRequest) -> None:
        cedar, rego = (engine.evaluate(bundle, [request])[0] for engine, bundle in loaded(pair))
        if known_difference(request):
            assert told(cedar) == told(rego) or not (cedar.permitted and rego.permitted)
        else:
            assert told(cedar) == told(rego)

    check()


@pytest.mark.parametrize("pair", PAIRS)
def test_declarations_are_those_that_requests_were_made_of(pair):
    cedar, rego = bundles(pair)
    if cedar.manifest.parameters is not None:
        assert parse_parameters(cedar.files["parameters.json"]).types
    assert set(read_windows(cedar).digests.items()) == set(read_windows(rego).digests.items())
    assert recorded(pair) == tuple(case_requests(rego, read_cases(rego)))
