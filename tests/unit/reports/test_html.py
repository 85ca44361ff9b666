"""The report as HTML: nothing hostile is markup, nothing is cut in silence, nothing is claimed too much."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from evidence.summary import AccessLine, ControlStatus, Gap, PackSummary
from ledger.errors import EvidenceError
from ledger.legible import REPERTOIRE
from reports.render import render_html
from reports.settings import ListCaps
from tests.support import summaries
from tests.support.html_text import html_text

STAMP = "SIMULATED: made with demonstration keys, clocks or records. Not evidence of real events."
SUMMARIES: dict[str, Callable[[], PackSummary]] = {
    "demo": summaries.demo,
    "tiny": summaries.tiny,
    "empty": summaries.empty,
    "troubled": summaries.troubled,
    "hostile": summaries.hostile,
    "many": lambda: summaries.many_denied(130),
}
FEW = ListCaps(
    denied_table=3,
    denied_listing=7,
    exceptions=2,
    exceptions_per_test=1,
    policy_changes=3,
    access=1,
    gaps=4,
    chart_bars=2,
)


class _Elements(HTMLParser):
    """Collects the start tags of a document and what addresses they name."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "link", "br", "img", "input"}:
            self.open.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _elements(html: str) -> _Elements:
    elements = _Elements()
    elements.feed(html)
    elements.close()
    assert elements.open == []
    return elements


def _text(summary: PackSummary, caps: ListCaps = ListCaps()) -> str:  # noqa: B008 - a frozen value
    return html_text(render_html(summary, caps=caps))


# --- hostile strings -----------------------------------------------------------------------------------------------


def test_hostile_strings_add_no_element_and_no_attribute() -> None:
    plain, hostile = (_elements(render_html(make())) for make in (summaries.demo, summaries.hostile))
    assert set(hostile.tags) <= set(plain.tags)
    assert {name for name, _ in hostile.attributes} <= {name for name, _ in plain.attributes}


@pytest.mark.parametrize("name", SUMMARIES)
def test_no_address_outside_of_the_report_is_named(name: str) -> None:
    addresses = [
        value
        for attribute, value in _elements(render_html(SUMMARIES[name]())).attributes
        if attribute in {"href", "src", "data", "srcset", "action", "style"}
    ]
    assert addresses
    assert all(re.fullmatch(r"#[a-z0-9-]+|asset:styles/[a-z]+\.css", address) for address in addresses)


def test_templates_in_names_are_not_evaluated() -> None:
    assert "{{ 7 * 7 }}{% raw %}" in _text(summaries.hostile())


@pytest.mark.parametrize("name", SUMMARIES)
def test_only_characters_that_the_fonts_hold_are_printed(name: str) -> None:
    ours = {"\n", "✓", "\u00a0", "\u2039", "\u203a"}
    assert set(render_html(SUMMARIES[name]())) <= REPERTOIRE | ours


def test_an_override_in_a_name_is_seen() -> None:
    assert "invoice\u2039U+202E\u203agpj.exe" in _text(summaries.hostile())


# --- the stamp -----------------------------------------------------------------------------------------------------


def test_a_simulated_pack_is_stamped_on_the_cover_and_in_what_runs_on_every_page() -> None:
    html = render_html(summaries.demo())
    head = html[html.index('<div class="running-head">') : html.index('<div class="running-foot">')]
    cover = html[html.index('<section class="cover">') : html.index('<section class="front"')]
    assert STAMP in head
    assert STAMP in cover
    assert "<b>· SIMULATED</b>" in html


def test_a_real_pack_says_nowhere_that_it_is_simulated() -> None:
    assert "SIMULATED" not in render_html(summaries.tiny())


# --- what may and must be said -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_report_never_calls_anything_compliant_or_certified(name: str) -> None:
    assert re.search(r"complian|certif", render_html(SUMMARIES[name]()), re.IGNORECASE) is None


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_section_stands_in_order_and_has_words_in_it(name: str) -> None:
    text = _text(SUMMARIES[name]())
    titles = [
        *("1 How to verify this report", "2 Scope and system description", "3 What is proved, and what is not"),
        *("4 Completeness and accuracy", "5 Control matrix", "6 Control sheets", "7 Calls that did not pass"),
        *("8 Exceptions and gaps", "9 Policy bundles and change history", "10 Re-performance"),
        *("11 Access to the evidence", "12 Chain of custody", "13 Glossary and cryptographic appendix"),
    ]
    places = [text.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    assert all(after - before > 60 for before, after in pairwise(places))


def test_every_empty_part_says_that_it_is_empty_and_why() -> None:
    empties = [line for line in _text(summaries.empty()).splitlines() if line.startswith("Nothing to show.")]
    assert len(empties) == 16
    assert all(len(line.removeprefix("Nothing to show.").split()) >= 6 for line in empties)
    assert len(set(empties)) == len(empties)


def test_every_denied_call_stands_with_its_rule_policy_and_proof() -> None:
    summary = summaries.demo()
    text = _text(summary)
    for call in summary.denied:
        (line,) = (line for line in text.splitlines() if line.startswith(f"{call.leaf} | ") and ".tlog-proof" in line)
        assert call.proof in line
        assert (call.failed_condition or (call.rules[0] if call.rules else call.reason)) in line
        assert (call.bundle_revision or "no policy version")[:12] in line
        assert call.agent in line


def test_a_denied_call_without_a_policy_user_tool_or_proof_says_so() -> None:
    summary = summaries.tiny()
    bare = replace(summary.denied[0], bundle_revision=None, user=None, tool=None, method="", proof="", local_time="")
    text = _text(replace(summary, denied=(bare,)))
    for words in ("no policy version", "no user", "no tool named", "message not readable", "no proof file of its own"):
        assert words in text


@pytest.mark.parametrize("name", SUMMARIES)
def test_percentages_and_shares_have_a_denominator_beside_them(name: str) -> None:
    lines = [line for line in _text(SUMMARIES[name]()).splitlines() if re.search(r"\d %", line)]
    assert name == "empty" or lines
    assert all(re.search(r"\d of \d", line) for line in lines)


def test_counts_of_results_never_stand_without_their_whole() -> None:
    text = _text(summaries.troubled())
    for part, whole in (
        ("38", "309 calls did not pass"),
        ("15", "23 controls satisfied"),
        ("291", "309 decisions re-performed"),
        ("3", "5,085 tested items"),
        ("21", "309 decisions were made in observe mode"),
        ("621", "621 records of the log"),
        ("2", "311 decisions of the range lie outside"),
        ("291", "293 exact replays gave the same decision"),
        ("581", "621"),
    ):
        assert re.search(rf"(?<![\d,]){part} of {whole}", text), (part, whole)


def test_digests_are_printed_whole_in_the_appendix_and_short_elsewhere() -> None:
    summary = summaries.demo()
    before, _, appendix = _text(summary).partition("\nDigests in full\n")
    whole = {summary.root, *(signer.fingerprint for signer in summary.signers)}
    whole |= {call.bundle_revision for call in summary.denied if call.bundle_revision}
    whole |= {change.previous_revision for change in summary.policy_changes if change.previous_revision}
    for digest in whole:
        assert digest not in before
        assert digest[:12] in before
        assert appendix.count(digest) == 1


@pytest.mark.parametrize("name", SUMMARIES)
def test_no_digest_or_pseudonym_of_more_than_twelve_digits_stands_before_the_sentences_of_custody(name: str) -> None:
    before, mark, _ = render_html(SUMMARIES[name]()).partition(' id="custody">')
    assert mark
    assert re.findall(r"(?<![0-9a-zA-Z])[0-9a-f]{13,}(?![0-9a-zA-Z])", before) == []


def test_names_that_look_like_digests_are_printed_whole_wherever_they_stand() -> None:
    """An agent chooses the name of the tool that it calls: two names with one beginning must not be printed alike."""
    summary = summaries.demo()
    call = summary.denied[0]
    twins = ("deadbeefcafe" + "0" * 19 + "1", "deadbeefcafe" + "0" * 19 + "2")
    calls = tuple(
        replace(call, leaf=leaf, agent=name, server=name, tool=name, method=name, rules=(name,), failed_condition=name)
        for leaf, name in enumerate(twins)
    )
    population = replace(
        summary.population, by_rule=dict.fromkeys(twins, 1), by_tool={f"{n}/{n}": {"deny": 1} for n in twins}
    )
    streams = tuple(replace(summary.streams[0], enforcer_id=name) for name in twins)
    text = _text(replace(summary, denied=calls, population=population, streams=streams))
    for name in twins:
        row = next(line for line in text.splitlines() if line.startswith(f"{twins.index(name)} | 2"))
        assert row.count(name) == 5  # agent, server, tool, method and rule
        assert f"\n{name} | 1 of 2" in text
        assert f"\n{name}/{name} | 0 | 0 | 1 | 0" in text
        assert f"\n{name} / " in text


@pytest.mark.parametrize("name", SUMMARIES)
def test_what_is_shortened_ends_in_an_ellipsis(name: str) -> None:
    shown = re.findall(r'<span class="digest">([^<]*)</span>', render_html(SUMMARIES[name]()))
    assert shown
    assert all(re.fullmatch(r"[0-9a-f]{12}…|[0-9a-f]{8}|[^…]*[^0-9a-f…][^…]*", value) for value in shown)


def test_files_of_a_bundle_are_named_within_their_folder() -> None:
    assert "| manifest.json, policy.cedar, schema.json" in _text(summaries.demo())


def test_trouble_is_said_in_the_first_paragraphs_and_where_it_belongs() -> None:
    text = _text(summaries.troubled())
    brief = text[text.index("\nIn brief\n") : text.index("\nContents\n")]
    assert "The root was not recomputed over the range." in brief
    assert "Completeness of the enforcers' records: gap" in brief
    assert "21 of 309 decisions were made in observe mode" in brief
    assert "leaves 581, 583, 590" in text
    assert "17\u201319, 101\u2013110, 400 | 222\u2013224" in text
    assert "2 of 293 gave another one: leaves 77, 301" in text


def test_a_test_that_had_nothing_to_look_at_is_not_shown_as_passed() -> None:
    text = _text(summaries.troubled())
    assert "default-deny Nothing to test: 0 of 1 items that it needs. | 0 | 0 of 0 | 0 of 0" in text
    assert "approval-bound Nothing to test: 0 of 1 items that it needs; the verdict does without it." in text


def test_statuses_are_words_with_a_sign() -> None:
    html = render_html(summaries.troubled())
    for status in ControlStatus:
        assert re.search(rf'<span class="mark">[✓\u00d7?\u2013]</span> {status.value}</span>', html)


def test_a_pack_without_witness_or_anchor_says_who_dates_it() -> None:
    assert "nothing outside the operator's control dates this log" in _text(summaries.empty())


def test_a_copy_in_a_directory_is_said_to_be_in_the_hands_of_the_operator() -> None:
    summary = summaries.demo()
    own = "in the operator's hands"
    (anchor,) = summary.anchors
    locked = replace(anchor, kind="s3-object-lock")
    assert f"{anchor.location} / {own} | " in _text(summary)
    assert "(anchors), in the operator's own hands." in _text(summary)
    assert own not in _text(replace(summary, anchors=(locked,)))
    assert "names 2 copies of checkpoints kept apart (anchors)." in _text(replace(summary, anchors=(anchor, locked)))


@pytest.mark.parametrize(("behind", "told"), [(0, None), (1, "1 record behind"), (250, "250 records behind")])
def test_a_copy_that_lags_behind_the_packs_checkpoint_says_by_how_much(behind: int, told: str | None) -> None:
    summary = summaries.demo()
    (anchor,) = summary.anchors
    text = _text(replace(summary, anchors=(replace(anchor, size=summary.tree_size - behind),)))
    assert (told or "") in text
    assert ("behind |" in text) == (told is not None)


def test_the_days_of_the_chart_are_said_to_be_those_of_utc() -> None:
    assert "Decisions by enforcement, in days of UTC as the pack counts them." in _text(summaries.demo())


def test_the_source_of_a_framework_ends_in_one_full_stop() -> None:
    summary = summaries.demo()
    sheets = tuple(replace(sheet, source="Titles in our own words.") for sheet in summary.frameworks)
    assert "own words.." not in _text(replace(summary, frameworks=sheets))


def test_an_action_is_said_in_words() -> None:
    summary = summaries.demo()
    line = replace(summary.access[0], action="introduce_enforcer", target="enforcer gateway-1")
    text = _text(replace(summary, access=(line,)))
    assert "1 access or change in the range" in text
    assert "| introduce enforcer |" in text


def test_a_simulated_history_of_policies_says_that_its_clocks_were_simulated() -> None:
    told = "Some of the clocks were simulated"
    summary = summaries.demo()
    assert told in _text(summary)
    assert told not in _text(replace(summary, simulated=False))


def test_counts_that_contradict_the_list_of_denied_calls_are_said_to() -> None:
    summary = summaries.demo()
    assert "contradict" not in _text(summary)
    assert "by the counts, 38 of 309 did not pass" in _text(replace(summary, denied=summary.denied[:-1]))
    assert "By them, 38 of 309 calls did not pass" in _text(replace(summary, denied=()))


# --- caps ----------------------------------------------------------------------------------------------------------


def test_every_list_that_is_cut_says_so_and_names_where_it_goes_on() -> None:
    summary = summaries.demo()
    line = AccessLine(
        leaf=1,
        time_ms=summary.from_ms,
        action="query",
        actor="a",
        actor_role="auditor",
        target="t",
        items=1,
        result="ok",
    )
    gap = Gap(kind="kind", sentence="A sentence.")
    text = _text(replace(summary, access=(line,) * 9, gaps=(gap,) * 9), FEW)
    for words in (
        "7 of 38 calls are printed: the listing ends at its cap of 7 lines. The rest is continued in the population",
        "2 of 3 failed items are printed: this list ends at its cap. The rest is continued in exceptions.json",
        "3 of 8 steps are printed: this list ends at its cap. The rest is continued in the population file",
        "1 of 9 accesses and changes are printed: this list ends at its cap. The rest is continued in access-log.jsonl",
        "4 of 9 gaps are printed: this list ends at its cap. The rest is continued in gaps.json",
        "7 other targets",
        "6 other rules",
    ):
        assert words in text


def test_a_list_that_fits_says_nothing_of_a_cap() -> None:
    assert "its cap" not in _text(summaries.demo())


def test_exceptions_beyond_the_first_of_a_test_are_counted_on_its_sheet() -> None:
    summary = summaries.demo()
    sheet = summary.frameworks[0]
    control = sheet.controls[1]
    (result,) = control.tests
    result = replace(result, failed=7, passed=result.population - 7, deviations=result.deviations * 7)
    controls = (replace(control, tests=(result,)),)
    text = _text(replace(summary, frameworks=(replace(sheet, controls=controls),)))
    assert "7 of 309 failed reviewed-bundle:" in text
    assert "5 of 7 are printed; continued in section 8 and in exceptions.json of the pack." in text


def test_thousands_of_denied_calls_become_a_listing_and_not_a_table() -> None:
    html = render_html(summaries.many_denied(130))
    assert html.count("<pre><b>") == 4
    assert '<table class="denied">' not in html
    assert html.count(".tlog-proof") == 130 + 1  # and one in the glossary


# --- summaries that cannot be printed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"to_ms": summaries.FROM_MS}, "ends before it begins"),
        ({"zone": "Mars/Olympus"}, "time zone"),
        ({"zone": "../../etc/passwd"}, "time zone"),
        ({"root": "not hexadecimal"}, "not hexadecimal"),
        ({"root": "00" * 31}, "not 32 bytes"),
        ({"checkpoint_ms": 10**18}, "calendar"),
    ],
)
def test_a_summary_that_cannot_be_printed_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        render_html(replace(summaries.demo(), **changes))  # type: ignore[arg-type]


def test_two_sheets_for_one_control_are_refused() -> None:
    summary = summaries.demo()
    with pytest.raises(EvidenceError, match="two sheets"):
        render_html(replace(summary, frameworks=summary.frameworks * 2))


def test_an_error_quotes_nothing_of_the_summary() -> None:
    with pytest.raises(EvidenceError) as caught:
        render_html(replace(summaries.demo(), zone="secret-name"))
    assert "secret-name" not in str(caught.value)


# --- a function of the summary -------------------------------------------------------------------------------------


def test_the_same_summary_gives_the_same_html_whatever_the_hash_seed_the_zone_and_the_locale() -> None:
    program = (
        "import hashlib; from tests.support import summaries; from reports.render import render_html;"
        "print(hashlib.sha256(render_html(summaries.hostile()).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C.UTF-8", "LANG": language, "PYTHONPATH": "."},
        ).stdout
        for seed, zone, language in (("0", "UTC", "C"), ("12345", "Asia/Tokyo", "de_DE.UTF-8"))
    }
    assert len(digests) == 1


def test_the_order_of_mappings_does_not_matter() -> None:
    summary = summaries.demo()
    population = summary.population
    shuffled = replace(
        population,
        by_day=dict(reversed(population.by_day.items())),
        by_tool=dict(reversed(population.by_tool.items())),
        by_rule=dict(reversed(population.by_rule.items())),
        by_effect=dict(reversed(population.by_effect.items())),
        by_enforcement=dict(reversed(population.by_enforcement.items())),
        records_by_type=dict(reversed(population.records_by_type.items())),
    )
    replays = replace(summary.reperformance, by_class={"erased": 1, "exact": 308})
    turned = replace(replays, by_class={"exact": 308, "erased": 1})
    assert render_html(replace(summary, population=shuffled, reperformance=turned)) == render_html(
        replace(summary, reperformance=replays)
    )
