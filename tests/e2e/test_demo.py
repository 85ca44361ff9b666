"""`tallystick demo`, from outside: what it shows, what it leaves, and that others can check it without believing it.

It runs once for all these tests (`tests.support.demonstration`). What holds after every step is judged by the
demonstration itself; here its judgement is checked against its files, with the command line alone where it can be.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pypdf
import pytest

from evidence.container import read_container
from ledger.bodies import Decision, Outcome
from ledger.errors import ConfigError
from ledger.prover import Prover
from ledger.records import decode_entry
from ledger.trust import parse_trust_policy
from policies.directories import read_library_bundle
from service.demo.stage import fresh
from service.wiring.places import directory_tiles
from tests.support.commands import Finished, Started, run
from tests.support.demonstration import FOLDER, Runs
from tests.support.repository import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOG = "demo"

SHOWN = [
    "Finance-Bot at 10:00 with a second factor: allowed",
    "Finance-Bot at 03:00: denied by finance-business-hours",
    "Finance-Bot at 10:05 without a second factor: denied by finance-mfa-required",
    "support after hours, in the office, a small export: allowed",
    "support in a coffee shop by day, a small export: allowed",
    "support exports in bulk, in the office by day: allowed",
    "all three at once: after hours, coffee shop, bulk: killed by support-exfiltration-4d",
    "one patient record: allowed",
    "10,000 patient records instead of one: killed by phi-minimum-necessary",
    "one record, but the session has ended: denied (session_ended)",
    'a laptop\'s price as {"sku":"laptop","price":1.00}: denied by price-floor',
    'a laptop\'s price as {"sku":"laptop","price":"1.00"}: denied by price-floor',
    'a laptop\'s price as {"sku":"laptop","price":1e0}: denied by price-floor',
    'a laptop\'s price as {"sku":"laptop","price":1.0}: denied by price-floor',
    'a laptop\'s price as {"item":{"sku":"laptop","price":1.00}}: denied by price-floor',
    'a laptop\'s price as {"sku":"laptop","price":999.00}: allowed',
    'a laptop\'s price as {"sku":"laptop","price":"999.00"}: allowed',
    'a laptop\'s price as {"sku":"laptop","price":999e0}: allowed',
    'a laptop\'s price as {"sku":"laptop","price":999.0}: allowed',
    'a laptop\'s price as {"item":{"sku":"laptop","price":999.00}}: allowed',
    "two prices under one key: denied (duplicate_key)",
    "a message that is not JSON: denied (malformed)",
    "a header that names another tool: denied (header_mismatch)",
    "a token that nobody issued: denied (unauthenticated)",
    "each tool ran exactly as often as it was allowed; no denied call arrived",
    "every call has its one decision record",
    "the audit re-hashed, re-built and re-opened everything and found nothing",
    "the checkpoint is signed with Ed25519 and ML-DSA-44, and anchored",
    "the pack is proven under the auditor's trust policy",
    "without a trust policy from outside it is self-asserted",
    "with one bit flipped it fails, and says where",
    "the denial of 03:00 replays to the same decision under the policy of then (DENY → DENY)",
    "under the changed policy it comes out differently (DENY → PERMIT)",
    "every decision of the day that a policy made comes out the same again",
]


def records(runs: Runs) -> list:
    """Return every record of the second run's log, from a holder's view: the directory and the trust policy."""
    prover = Prover(directory_tiles(runs.folder / "data" / "logs"), LOG)
    trust = parse_trust_policy((runs.folder / "trust.policy").read_bytes())
    size = trust.verify(prover.checkpoint()).head.size
    return [decode_entry(entry) for entry in prover.entries(0, size, size)]


# --- what it shows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", SHOWN)
def test_it_shows_each_case_and_each_holds(runs, claim):
    for printed in (runs.first, runs.once):
        (line,) = [line for line in printed.splitlines() if claim in line]
        assert line.strip().startswith("✓")


def test_it_makes_no_claim_that_does_not_hold(runs):
    assert "✗" not in runs.first + runs.once
    assert "Traceback" not in runs.first + runs.once


def test_with_once_it_leaves_with_status_0_and_no_process_behind(runs):
    assert (runs.once_status, runs.once_left_behind) == (0, [])
    assert runs.once.endswith("Everything held.")


def test_a_second_run_in_the_same_folder_works_and_keeps_nothing_of_the_first(runs):
    assert (runs.folder / "trust.policy").read_bytes() != (runs.other / "trust.policy").read_bytes()
    assert not (runs.folder / "my-gateway").exists()


def test_one_claim_that_does_not_hold_makes_it_fail(tmp_path):
    # The denial of 03:00, of which a mistaken scenario believes that it is allowed.
    script = textwrap.dedent(
        """
        import dataclasses
        import service.demo.run as run
        from service.cli import main

        every = run.steps
        run.steps = lambda day: [dataclasses.replace(every(day)[-1], expect="allow", rule=None)]
        main()
        """
    )
    command = [sys.executable, "-c", script, "demo", "--once", "--dir", tmp_path / "demo"]
    with Started(command, cwd=ROOT, variables={}) as started:
        assert started.wait() == 1, started.text
    assert re.search(r"✗ Thu 03:00 +Finance-Bot at 03:00: denied by finance-business-hours", started.text)
    assert "claims did not hold" in started.text
    assert "Everything held." not in started.text


# --- what it invites to while it stays up ----------------------------------------------------------------------------


def test_ctrl_c_ends_it_with_status_0_and_no_process_behind_even_where_a_shell_ignored_it(runs):
    assert (runs.first_status, runs.left_behind) == (0, [])
    assert runs.first.endswith("The demonstration ends.")


def test_the_dashboard_link_leads_to_a_page_that_says_simulated_and_works_once(runs):
    status, page = runs.invitation.dashboard
    assert status == 200
    assert "SIMULATED" in page
    assert "finance-business-hours" in page
    assert runs.invitation.again == 403


def test_the_page_about_the_api_is_there(runs):
    assert runs.invitation.documentation == 200


def test_the_printed_search_finds_the_denials(runs):
    found = [item["record"]["body"] for item in runs.invitation.denials["items"]]
    assert {body["enforcement"] for body in found} == {"deny"}
    assert {rule for body in found for rule in body.get("rules", ())} >= {
        "price-floor",
        "finance-mfa-required",
        "refund-limit",
    }


def test_the_demonstrations_gateway_refuses_a_stranger(runs):
    assert runs.invitation.gateway == 401


def test_the_printed_commands_put_a_server_of_ones_own_behind_a_gateway(runs):
    assert "gateway-2 is introduced at leaf" in runs.invitation.init
    assert runs.invitation.answer == "denied (no_permit)"
    (decision,) = runs.invitation.recorded
    assert decision["record"]["enforcer_id"] == "gateway-2"
    assert decision["record"]["body"]["enforcement"] == "deny"


# --- what it leaves --------------------------------------------------------------------------------------------------


def test_everything_that_was_recorded_says_simulated(runs):
    made = records(runs)
    assert len(made) > 400
    assert all(record.simulated for record in made)
    assert {type(record.body).__name__ for record in made} >= {
        "Decision",
        "Outcome",
        "KeyEvent",
        "BundleEvent",
        "Heartbeat",
        "AccessEvent",
    }


def test_a_few_hundred_calls_have_one_decision_each_and_each_permitted_one_an_outcome(runs):
    made = records(runs)
    decisions = {record.record_id: record.body for record in made if isinstance(record.body, Decision)}
    outcomes = Counter(record.body.decision_id for record in made if isinstance(record.body, Outcome))
    assert len(decisions) > 200
    assert len({body.agent for body in decisions.values()}) >= 5
    permitted = {name for name, body in decisions.items() if body.enforcement == "allow" or body.decision == "PERMIT"}
    assert outcomes == Counter(permitted)


def test_each_page_of_the_report_says_simulated(runs):
    pages = pypdf.PdfReader(io.BytesIO((runs.folder / "evidence-pack.pdf").read_bytes())).pages
    assert len(pages) > 5
    assert all("SIMULATED" in page.extract_text() for page in pages)


def test_the_report_beside_the_pack_is_the_one_in_it(runs):
    files = read_container(memoryview((runs.folder / "evidence-pack.zip").read_bytes()))
    assert bytes(files["pack.pdf"]) == (runs.folder / "evidence-pack.pdf").read_bytes()


@pytest.mark.parametrize("framework", ["soc2", "hipaa"])
def test_the_pack_has_at_least_eight_controls_of_each_framework(runs, framework):
    files = read_container(memoryview((runs.folder / "evidence-pack.zip").read_bytes()))
    assert len([path for path in files if path.startswith(f"controls/{framework}/")]) >= 8


def test_what_was_replayed_is_the_demonstrations_own_policy(runs):
    files = read_container(memoryview((runs.folder / "evidence-pack.zip").read_bytes()))
    revision = read_library_bundle("demo").revision
    assert {path.split("/")[1] for path in files if path.startswith("policies/")} == {revision}


# --- whether others can check it -------------------------------------------------------------------------------------


def verify(runs: Runs, *arguments: str | Path, pack: Path | None = None) -> Finished:
    return run("verify", pack or runs.folder / "evidence-pack.zip", *arguments, cwd=runs.folder)


def verdict(done: Finished) -> str:
    """Return the last line of a verification, up to what is said about it."""
    return re.split("[:,]", done.output.splitlines()[-1])[0]


def test_the_pack_is_proven_under_the_trust_policy(runs):
    done = verify(runs, "--trust", "trust.policy")
    assert (done.status, done.errors) == (0, "")
    assert verdict(done) == "PROVEN"


def test_without_a_trust_policy_the_pack_is_self_asserted(runs):
    done = verify(runs)
    assert done.status == 3
    assert verdict(done) == "SELF-ASSERTED"


def test_an_anchored_checkpoint_is_proved_to_be_of_one_history_with_the_pack(runs):
    anchored = sorted((runs.folder / "anchor" / LOG / "checkpoint").iterdir(), key=lambda path: int(path.name))
    done = verify(runs, "--trust", "trust.policy", "--known", anchored[0])
    assert done.status == 0
    assert f"known checkpoint: the tree of {anchored[0].name} leaves that was kept is of one history" in done.output


def test_a_checkpoint_of_a_log_of_the_same_name_under_other_keys_is_not_believed(runs):
    files = read_container(memoryview((runs.other / "evidence-pack.zip").read_bytes()))
    foreign = runs.other / "end.txt"
    foreign.write_bytes(bytes(files["checkpoints/end.txt"]))
    done = verify(runs, "--trust", "trust.policy", "--known", foreign)
    assert done.status == 3
    assert verdict(done) != "PROVEN"


def test_a_whole_log_and_pack_made_anew_under_other_keys_do_not_meet_the_trust(runs):
    forged = runs.other / "evidence-pack.zip"
    assert verify(runs, "--trust", runs.other / "trust.policy", pack=forged).status == 0
    done = verify(runs, "--trust", "trust.policy", pack=forged)
    assert done.status == 3
    assert verdict(done) == "TRUST NOT MET"


@pytest.mark.parametrize("path", ["checkpoints/end.txt", "pack.pdf", "manifest.dsse.json"])
def test_a_changed_byte_of_a_file_makes_it_fail_and_is_named(runs, tmp_path, path):
    data = bytearray((runs.folder / "evidence-pack.zip").read_bytes())
    # A byte of the file's content: members are stored, so that it stands in the archive as it is.
    content = bytes(read_container(memoryview(bytes(data)))[path])
    data[data.index(content) + len(content) // 2] ^= 1
    changed = tmp_path / "changed.zip"
    changed.write_bytes(data)
    done = verify(runs, "--trust", "trust.policy", pack=changed)
    assert done.status in (1, 2)
    assert f"the bytes of {path} do not" in done.output
    assert verdict(done) != "PROVEN"


def test_the_log_can_be_audited_from_a_copy_of_its_directory(runs, tmp_path):
    shutil.copytree(runs.folder / "data" / "logs" / LOG, tmp_path / LOG)
    arguments = ("audit", "--log", tmp_path / LOG, "--trust", runs.folder / "trust.policy", "--json")
    done = run(*arguments, cwd=tmp_path)
    report = json.loads(done.output)
    assert (done.status, report["findings"]) == (0, [])
    assert report["checked"]["entries"] == report["size"] > 400
    assert {stream["verdict"] for stream in report["streams"]} == {"complete"}


# --- what it does not do ---------------------------------------------------------------------------------------------


def test_the_service_refuses_the_demonstrations_keys(runs):
    variables = {
        "TALLYSTICK_DATA_DIR": str(runs.folder / "data"),
        "TALLYSTICK_KEYS_DIR": str(runs.folder / "keys"),
        "TALLYSTICK_LOG_ID": LOG,
        "TALLYSTICK_TENANT": "demo",
        "TALLYSTICK_ENVIRONMENT": "demonstration",
        "TALLYSTICK_ORIGIN": "tallystick.invalid/demo",
        "TALLYSTICK_LISTEN": "127.0.0.1:0",
    }
    done = run("serve", cwd=runs.folder, **variables)
    assert done.status == 64
    assert done.errors.splitlines()[-1] == (
        "tallystick: demonstration keys or clocks: this service writes no real log with them"
    )


def test_a_folder_that_it_did_not_make_is_left_alone(tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "precious").write_text("do not delete")
    done = run("demo", "--once", cwd=tmp_path)
    assert done.status == 64
    assert done.errors == f"tallystick: {folder} exists and was not made by the demonstration\n"
    assert [path.name for path in folder.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    "files", [{}, {"README": "my project"}, {"precious": "1", "README": "MADE BY TALLYSTICK DEMO"}]
)
def test_neither_an_empty_folder_nor_a_readme_of_others_passes_for_its_own(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="was not made by the demonstration"):
        fresh(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_folder_of_its_own_is_emptied(tmp_path):
    fresh(tmp_path / "demo")
    (tmp_path / "demo" / "old").write_text("of an earlier run")
    fresh(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["README"]


# --- the README's first five minutes ---------------------------------------------------------------------------------


def readme_lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(".venv/bin/tallystick ")]


def test_the_readmes_commands_do_what_the_readme_says(runs):
    with_trust, without = readme_lines()
    done = runs.shell(with_trust)
    assert (done.status, verdict(done)) == (0, "PROVEN")
    assert "self-asserted, exit status 3" in without
    done = runs.shell(without)
    assert (done.status, verdict(done)) == (3, "SELF-ASSERTED")


def test_the_printed_command_is_the_readmes(runs):
    (printed,) = re.findall(r"^   verify  (.*)$", runs.once, re.MULTILINE)
    assert printed == readme_lines()[0]
    assert runs.shell(printed).status == 0
