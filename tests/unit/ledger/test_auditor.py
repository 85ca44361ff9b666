"""The audit: whatever is changed, wherever, is found, and where one leaf is concerned, it is named.

The attackers here grow stronger from section to section: one changes a byte, one whole trees, one the database with its
triggers, one holds keys. What the strongest can do unseen is pinned too: it is why anchors exist.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import LargeBinary, text

from ledger.audit_report import AuditReport, Finding
from ledger.auditor import Auditor
from ledger.bodies import BundleReference, Decision, Facts, KeyEvent, Outcome, Tombstone
from ledger.bodies_inspection import Inspection
from ledger.canonical import canonical_bytes
from ledger.commitments import SALT_BYTES
from ledger.completeness import Verdict
from ledger.database import writing
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import StorageError
from ledger.notes import SignatureType
from ledger.ports import Opening, commit
from ledger.projection import PROJECTED_TABLES
from ledger.records import decode_entry, encode_record, field_classes, sign_record
from ledger.signers.local import LocalSigner
from ledger.stores import tables
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.tiles import CHECKPOINT_PATH, unpack_bundle
from ledger.trust import TrustPolicy
from ledger.vault import Vault
from tests.support.faults import Faults, FaultyTileStore
from tests.support.forge import write_bundle, write_log, write_tree
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, Enforcer, make_decision, make_key, pending

USER = "6" * 32
TARGET = 2
"""The leaf of the decision in which every field is set."""

FULL = {
    "tool_digest": "7" * 64,
    "protocol_version": "2026-07-28",
    "bundle": BundleReference(name="finance", revision="8" * 64, engine="cedar", engine_version="4.12.2"),
    "rules": ("finance-business-hours", "finance-mfa"),
    "obligations": ("end_session",),
    "facts": Facts(
        authn="api_token",
        zone="Europe/Berlin",
        local_hour=3,
        local_minute=15,
        weekday=3,
        network="office",
        session_calls=4,
        mfa=True,
        roles=("analyst",),
        tls_version="TLSv1.3",
        tls_group="X25519MLKEM768",
    ),
    "address": "9" * 32,
    "arguments_fingerprint": "a" * 32,
    "tags": ("finance",),
    "trace_id": "b" * 32,
    "drift": ("unknown_argument",),
    "interface": "authzen",
    "continues": "0199f0c5-0000-7000-8000-000000000001",
    "transport": "stdio",
    "direction": "server",
    "restriction": "019a9c14-6d80-7abc-8def-0123456789ab",
    "capture": "redacted",
    "capture_reason": "unreadable",
    "inspection": Inspection(extent="partial", inspector="e" * 64, findings=("secret/pem-key",), count=2),
    "tool_state": "pinned",
    "deviations": ("hour",),
}


def full_decision() -> tuple[Decision, tuple[Opening, ...]]:
    """Return a decision with every field, and the openings of those that are vaulted."""
    masked, opening = commit("masked_request", b"m" * SALT_BYTES, b'{"version":1}')
    body, openings = make_decision(**FULL, masked_request=masked)
    return body, (*openings, opening)


def fill(ledger: EmbeddedLedger) -> None:
    """Write one of everything that the audit looks at: 7 leaves."""
    service, gateway = ledger.service, Enforcer(enforcer_id="gateway-1", seed=11)
    ledger.introduce()
    ledger.append(pending(service.record(service.introduction(gateway))))
    body, openings = full_decision()
    decision = sign_record(msgspec.structs.replace(gateway.record(body), pseudonym_key_id="c" * 16), gateway.key)
    assert ledger.append(pending(decision, ledger.vault, openings)) == [TARGET]
    outcome = Outcome(
        decision_id=decision.record_id,
        status="completed",
        session="5" * 32,
        user=USER,
        result_fingerprint="d" * 32,
        contents=("e" * 32,),
    )
    ledger.append(pending(gateway.record(outcome)))
    ledger.decide(user="7" * 32)
    ledger.decide()
    ledger.append(pending(service.record(service.heartbeat())))
    ledger.publish()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original")
    with EmbeddedLedger(root) as ledger:
        fill(ledger)
    return root


@pytest.fixture
def ledger(original: Path, tmp_path: Path) -> Iterator[EmbeddedLedger]:
    """Return a copy of one log, for tampering."""
    root = tmp_path / "copy"
    shutil.copytree(original, root)
    with EmbeddedLedger(root, load=False) as opened:
        yield opened


def folder(ledger: EmbeddedLedger) -> Path:
    return ledger.root / "logs" / LOG_ID


def stored_entries(ledger: EmbeddedLedger) -> list[bytes]:
    data = (folder(ledger) / "tile" / "entries" / "000.p" / "7").read_bytes()
    return unpack_bundle(data, 7)


def outside_audit(ledger: EmbeddedLedger, *others: bytes) -> AuditReport:
    """Audit a copy of the log's directory, as somebody would who has nothing else."""
    return Auditor(LOG_ID, ledger.tiles, ledger.policy, other_checkpoints=others).audit()


def findings(report: AuditReport, check: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.check == check]


def leaves(report: AuditReport, check: str) -> set[int | None]:
    return {finding.leaf for finding in findings(report, check)}


# --- nothing was changed ---------------------------------------------------------------------------------------------


def test_an_untouched_log_is_clean_and_everything_was_looked_at(ledger):
    report = ledger.audit()
    assert report.findings == []
    assert report.clean
    assert report.not_checked == []
    assert report.head is not None
    assert report.head.size == 7
    assert dict(report.checked) == {
        "checkpoints": 3,  # exposed, published, anchored
        "roots": 3,
        "tiles": 1,
        "entries": 7,
        "record signatures": 7,
        "projected rows": 7 + 5,
        "payloads": 7,
    }


def test_that_records_were_simulated_is_said(ledger):
    (notice,) = ledger.audit().notices
    assert notice.check == "simulated"
    assert notice.reason.startswith("SIMULATED: 7 of 7 records were made")


def test_what_was_not_at_hand_is_said(ledger):
    report = outside_audit(ledger)
    assert report.clean
    assert sorted(line.split(":")[0] for line in report.not_checked) == ["the SQL projection", "vaulted payloads"]


def test_the_streams_of_all_enforcers_are_assessed(ledger):
    streams = ledger.audit().streams
    assert [(stream.enforcer_id, stream.verdict) for stream in streams] == [
        ("gateway-1", Verdict.TAIL_UNKNOWN),
        ("service", Verdict.TAIL_UNKNOWN),
    ]


def test_an_enforcer_that_was_introduced_and_never_heard_of_is_named(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        fill(ledger)
        introduction = ledger.service.introduction(Enforcer("gateway-2", seed=12))
        ledger.append(pending(ledger.service.record(introduction)))
        ledger.publish()
        report = ledger.audit()
    assert report.clean
    (silent,) = [stream for stream in report.streams if stream.enforcer_id == "gateway-2"]
    assert silent.verdict is Verdict.TAIL_UNKNOWN
    assert "introduced at leaf 7" in silent.reason


def test_an_unpublished_log_is_said_to_be_unpublished(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        report = ledger.audit()
    assert report.head is None
    assert any("no checkpoint" in line for line in report.not_checked)


def test_a_log_of_several_bundles_is_clean_and_progress_is_told(tmp_path):
    progress: list[tuple[int, int]] = []
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        service = ledger.service
        for count in (100, 400, 100):
            ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(count)))
            ledger.publish()
        auditor = Auditor(
            LOG_ID, ledger.tiles, ledger.policy, progress=lambda done, whole: progress.append((done, whole))
        )
        report = auditor.audit()
        assert ledger.audit().clean
    assert report.clean
    assert report.checked["tiles"] == 3 + 1
    assert progress == [(256, 601), (512, 601), (601, 601)]


# --- one field of one record -----------------------------------------------------------------------------------------

OTHER_VALUES = {
    "decision": "PERMIT",
    "enforcement": "allow",
    "mode": "observe",
    "type": "outcome",
}


def other_value(name: str, value: object) -> object:
    """Return another value, of the same kind and where that can be still valid for its field."""
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if name != "local_minute" else value - 1
    assert isinstance(value, str)
    last = value[-1]
    return value[:-1] + {"0": "1"}.get(last, "0" if last in "123456789abcdef" else "x")


def places(node: object, path: str = "") -> Iterator[tuple[str, list[str | int]]]:
    """Yield every value in an entry with its path as `field_classes` writes it and as keys."""
    if isinstance(node, dict):
        for name, value in node.items():
            for inner, keys in places(value, f"{path}.{name}".lstrip(".")):
                yield inner, [name, *keys]
    elif isinstance(node, list):
        for position, value in enumerate(node):
            for inner, keys in places(value, f"{path}[]"):
                yield inner, [position, *keys]
    else:
        yield path, []


def full_entry() -> dict:
    """Return the JSON of a decision in which every field is set; its values do not matter here."""
    gateway = Enforcer(enforcer_id="gateway-1", seed=11)
    record = msgspec.structs.replace(gateway.record(full_decision()[0]), pseudonym_key_id="c" * 16)
    return json.loads(encode_record(record))


ENTRY_PLACES = [(path.replace("body.", "body.decision.", 1), keys) for path, keys in places(full_entry())]
DECISION_FIELDS = {
    path for path in field_classes() if not path.startswith("body.") or path.startswith("body.decision.")
}


def test_the_walk_below_reaches_every_field_of_a_decision_record():
    assert {path for path, _ in ENTRY_PLACES} - {"body.decision.type"} == DECISION_FIELDS


def change(entry: bytes, keys: list[str | int], value: Callable[[object], object] | None) -> bytes:
    """Return an entry with one value changed, or removed, in canonical form."""
    document = json.loads(entry)
    node = document
    for key in keys[:-1]:
        node = node[key]
    if value is None:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value(node[keys[-1]])
    return canonical_bytes(document)


@pytest.mark.parametrize(("path", "keys"), ENTRY_PLACES, ids=[".".join(map(str, keys)) for _, keys in ENTRY_PLACES])
@pytest.mark.parametrize("removed", [False, True], ids=["changed", "removed"])
def test_any_field_changed_in_the_stored_entry_names_the_leaf(ledger, path, keys, removed):
    entries = stored_entries(ledger)
    name = next(key for key in reversed(keys) if isinstance(key, str))
    entries[TARGET] = change(entries[TARGET], keys, None if removed else lambda value: other_value(name, value))
    write_bundle(folder(ledger), entries)
    report = ledger.audit()
    assert leaves(report, "leaf") == {TARGET}, path
    assert TARGET in leaves(report, "record"), "the enforcer's signature does not hold any more"
    assert findings(report, "root")
    assert None not in leaves(report, "record") | leaves(report, "leaf")


@pytest.mark.parametrize("index", range(7))
def test_a_change_in_any_record_names_its_leaf(ledger, index):
    entries = stored_entries(ledger)
    entries[index] = change(entries[index], ["time_ms"], lambda value: value + 1)
    write_bundle(folder(ledger), entries)
    report = outside_audit(ledger)
    assert leaves(report, "leaf") == {index}
    assert index in leaves(report, "record")


@pytest.mark.parametrize(
    "spelling", [lambda entry: entry + b" ", lambda entry: b" " + entry, lambda _: b"{}", lambda _: b""]
)
def test_an_entry_that_is_no_record_any_more_names_its_leaf(ledger, spelling):
    entries = stored_entries(ledger)
    entries[TARGET] = spelling(entries[TARGET])
    write_bundle(folder(ledger), entries)
    report = ledger.audit()
    assert leaves(report, "leaf") == leaves(report, "record") == {TARGET}


def test_two_entries_exchanged_name_both_leaves(ledger):
    entries = stored_entries(ledger)
    entries[4], entries[5] = entries[5], entries[4]
    write_bundle(folder(ledger), entries)
    assert leaves(outside_audit(ledger), "leaf") == {4, 5}


def test_an_entry_left_out_is_found(ledger):
    entries = stored_entries(ledger)
    del entries[TARGET]
    path = folder(ledger) / "tile" / "entries" / "000.p" / "7"
    write_bundle(folder(ledger), entries)
    (path.parent / "6").rename(path)
    report = outside_audit(ledger)
    assert [finding.place for finding in findings(report, "bundle")] == ["tile/entries/000.p/7"]
    assert any("leaves from 0 on" in line for line in report.not_checked)


def test_a_change_beyond_the_first_bundle_names_its_leaf(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        service = ledger.service
        ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(400)))
        ledger.publish()
        data = (folder(ledger) / "tile" / "entries" / "001.p" / "145").read_bytes()
        entries = unpack_bundle(data, 145)
        entries[44] = change(entries[44], ["seq"], lambda value: value + 1)
        write_bundle(folder(ledger), entries, number=1)
        report = outside_audit(ledger)
    assert leaves(report, "leaf") == {300}
    assert leaves(report, "record") == {300}


# --- tiles and bundles -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    with EmbeddedLedger(root) as ledger:
        ledger.introduce()
        service = ledger.service
        ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(599)))
        ledger.publish()
        assert ledger.audit().clean
    return root


@pytest.fixture
def large_folder(large: Path, tmp_path: Path) -> Path:
    shutil.copytree(large / "logs", tmp_path / "logs")
    return tmp_path / "logs" / LOG_ID


def audit_folder(log_folder: Path) -> AuditReport:
    policy = EmbeddedLedger.trust_policy()
    return Auditor(LOG_ID, DirectoryTileStore(log_folder.parent), policy).audit()


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("path", "position", "leaf"),
    [("tile/0/000", 0, 0), ("tile/0/000", 8191, 255), ("tile/0/001", 32, 257), ("tile/0/002.p/88", 2815, 599)],
)
def test_a_changed_leaf_hash_names_its_leaf(large_folder, path, position, leaf):
    flip(large_folder / path, position)
    report = audit_folder(large_folder)
    assert [(finding.check, finding.leaf, finding.place) for finding in report.findings] == [("leaf", leaf, path)]


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_a_changed_hash_above_the_leaves_names_its_tile(large_folder, position):
    flip(large_folder / "tile" / "1" / "000.p" / "2", position)
    report = audit_folder(large_folder)
    assert [(finding.check, finding.place) for finding in report.findings] == [("tile", "tile/1/000.p/2")]
    assert f"hash {position // 32}" in report.findings[0].reason


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"])
@pytest.mark.parametrize("damage", ["gone", "cut", "longer", "empty"])
def test_a_tile_that_is_missing_or_of_another_length_is_named(large_folder, path, damage):
    file = large_folder / path
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": data[:-1], "longer": data + b"\0", "empty": b""}[damage])
    report = audit_folder(large_folder)
    assert [(finding.check, finding.place) for finding in report.findings] == [("tile", path)]


@pytest.mark.parametrize(
    ("path", "first"), [("tile/entries/000", 0), ("tile/entries/001", 256), ("tile/entries/002.p/88", 512)]
)
@pytest.mark.parametrize("damage", ["gone", "cut", "longer"])
def test_a_bundle_that_is_missing_or_torn_is_named_and_so_is_what_was_not_checked(large_folder, path, first, damage):
    file = large_folder / path
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": data[:-1], "longer": data + b"\0\0"}[damage])
    report = audit_folder(large_folder)
    assert [(finding.check, finding.place) for finding in report.findings] == [("bundle", path)]
    assert any(f"leaves from {first} on" in line for line in report.not_checked)


def test_partials_that_were_collected_are_no_finding(large_folder):
    for partial in large_folder.glob("tile/*/*.p"):
        if partial.with_suffix("").exists():
            shutil.rmtree(partial)
    assert audit_folder(large_folder).clean


def test_a_log_that_grew_and_was_tidied_while_it_was_audited_is_clean(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        service = ledger.service
        ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(299)))
        earlier = ledger.publish()
        ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(300)))
        ledger.publish()
        (folder(ledger) / CHECKPOINT_PATH).write_bytes(earlier)  # what the auditor had read before
        for partial in folder(ledger).glob("tile/*/*.p"):
            if partial.with_suffix("").exists():
                shutil.rmtree(partial)
        report = outside_audit(ledger)
    assert report.findings == []
    assert report.head is not None
    assert report.head.size == 300


# --- the projection, by an attacker who may change tables ------------------------------------------------------------


def as_owner(ledger: EmbeddedLedger, *statements: str, **values: object) -> None:
    """Run statements after dropping every trigger, as an attacker with DDL rights would."""
    with writing(ledger.engine) as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        query = text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in connection.execute(query).all():
            connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            assert connection.execute(text(statement), values).rowcount != 0, statement


PROJECTED_COLUMNS = [
    (name, column.name)
    for name in PROJECTED_TABLES
    for column in tables.metadata.tables[name].c
    if column.name not in ("log_no", "leaf_index", "received_ms")
]
OUTCOME = 3
OF_OUTCOME = ("decision_id", "status")


def leaf_of(column: str, table: str) -> int:
    """Return a leaf whose record says something in the column."""
    return OUTCOME if column in OF_OUTCOME or table == "contents" else TARGET


def said_as(column: str) -> str:
    """Return the projection's name for what a column of the tables holds."""
    return "enforcer_id" if column == "stream_no" else column.removesuffix("_key").removesuffix("_rest")


def projection_findings(ledger: EmbeddedLedger) -> list[Finding]:
    """Return what is wrong with the projection; without a record's row its payloads are not found either."""
    findings = ledger.audit().findings
    wrong = [finding for finding in findings if finding.check == "projection"]
    lost = {(finding.check, finding.leaf) for finding in findings if finding not in wrong}
    assert lost <= {("vault", finding.leaf) for finding in wrong}
    return wrong


@pytest.mark.parametrize(("table", "column"), PROJECTED_COLUMNS)
def test_any_projected_column_that_was_changed_names_the_leaf(ledger, table, column):
    blob = isinstance(tables.metadata.tables[table].c[column].type, LargeBinary)
    changed = "zeroblob(16)" if blob else f'"{column}" + 1000'
    leaf = leaf_of(column, table)
    as_owner(ledger, f'UPDATE {table} SET "{column}" = {changed} WHERE leaf_index = {leaf}')
    findings = projection_findings(ledger)
    assert {(finding.leaf, finding.place) for finding in findings} == {(leaf, table)}
    assert all(said_as(column) in finding.reason for finding in findings)


NULLABLE = [(table, column) for table, column in PROJECTED_COLUMNS if tables.metadata.tables[table].c[column].nullable]


@pytest.mark.parametrize(("table", "column"), NULLABLE)
def test_a_projected_value_that_was_removed_names_the_leaf(ledger, table, column):
    leaf = leaf_of(column, table)
    as_owner(ledger, f'UPDATE {table} SET "{column}" = NULL WHERE leaf_index = {leaf}')
    assert leaves(ledger.audit(), "projection") == {leaf}


@pytest.mark.parametrize(("table", "column"), NULLABLE)
def test_a_projected_value_that_was_invented_names_the_leaf(ledger, table, column):
    value = "zeroblob(16)" if column.endswith("_id") else "1"
    introduction = 0
    as_owner(ledger, f'UPDATE {table} SET "{column}" = {value} WHERE leaf_index = {introduction}')
    assert leaves(ledger.audit(), "projection") == {introduction}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE names SET name = 'another-bot' WHERE name = 'finance-bot'", {TARGET, 4, 5}),
        ("DELETE FROM names WHERE name = 'finance-mfa'", {TARGET}),
        ("UPDATE streams SET epoch = zeroblob(16) WHERE enforcer_id = 'gateway-1'", set()),
        ("UPDATE streams SET epoch = randomblob(16) WHERE enforcer_id = 'gateway-1'", {TARGET, OUTCOME}),
        ("UPDATE streams SET enforcer_id = 'gateway-2' WHERE enforcer_id = 'gateway-1'", {TARGET, OUTCOME}),
        ("DELETE FROM streams WHERE enforcer_id = 'gateway-1'", {TARGET, OUTCOME}),
    ],
)
def test_a_dictionary_that_was_changed_names_every_leaf_that_uses_it(ledger, statement, found):
    as_owner(ledger, statement)
    assert leaves(ledger.audit(), "projection") == found


@pytest.mark.parametrize(("table", "column"), PROJECTED_COLUMNS)
@pytest.mark.parametrize("value", ["'abc'", "0.5", "x'ff'", "CAST(x'ff' AS TEXT)"])
def test_a_cell_of_another_kind_is_a_difference_at_its_leaf_and_the_audit_goes_on(ledger, table, column, value):
    """SQLite keeps whatever it is given, in any column."""
    leaf = leaf_of(column, table)
    one = f" AND rule = (SELECT min(rule) FROM decision_rules WHERE leaf_index = {leaf})" if column == "rule" else ""
    as_owner(ledger, f'UPDATE {table} SET "{column}" = {value} WHERE leaf_index = {leaf}{one}')
    if table == "records" and column.endswith("_id"):
        # Its payloads are found by the id: they are missed as well.
        assert leaves(ledger.audit(), "projection") == {leaf}
        return
    assert {(finding.leaf, finding.place) for finding in projection_findings(ledger)} == {(leaf, table)}


@pytest.mark.parametrize("value", ["'abc'", "CAST(x'ff' AS TEXT)"])
@pytest.mark.parametrize(
    ("cell", "where"),
    [
        ("names SET name", "name = 'finance-mfa'"),
        ("streams SET epoch", "enforcer_id = 'gateway-1'"),
        ("streams SET enforcer_id", "enforcer_id = 'gateway-1'"),
    ],
)
def test_a_dictionary_that_cannot_be_read_names_the_leaves_that_use_it(ledger, cell, where, value):
    as_owner(ledger, f"UPDATE {cell} = {value} WHERE {where}")
    assert TARGET in leaves(ledger.audit(), "projection")


@pytest.mark.parametrize("cell", ["ciphertext = 'abc'", "subject = CAST(x'ff' AS TEXT)", "subject = 7"])
def test_a_payload_of_another_kind_is_damaged_at_its_leaf(ledger, cell):
    as_owner(ledger, f"UPDATE vault_payloads SET {cell} WHERE leaf_index = {TARGET} AND field = 'message'")
    report = ledger.audit()
    assert [(f.check, f.leaf, f.place) for f in report.findings] == [("vault", TARGET, "message")]


@pytest.mark.parametrize("table", PROJECTED_TABLES)
def test_a_projected_row_that_was_deleted_names_the_leaf(ledger, table):
    leaf = leaf_of("leaf_index", table)
    as_owner(ledger, f"DELETE FROM {table} WHERE leaf_index = {leaf}")
    assert {(finding.leaf, finding.place) for finding in projection_findings(ledger)} == {(leaf, table)}


def test_a_leaf_without_any_projected_row_is_named(ledger):
    as_owner(ledger, "DELETE FROM records WHERE leaf_index = 6")
    report = ledger.audit()
    assert [(finding.check, finding.leaf) for finding in report.findings] == [("projection", 6)]
    assert "lacks this leaf" in report.findings[0].reason


@pytest.mark.parametrize("table", PROJECTED_TABLES)
@pytest.mark.parametrize("column", ["leaf_index", "log_no"])
def test_a_projected_row_that_was_moved_names_the_leaf(ledger, table, column):
    ledger.store.create_log("other", tenant="o", origin="o", environment="o", simulated=True, created_ms=0)
    value = {"leaf_index": "900", "log_no": "2"}[column]
    leaf = leaf_of(column, table)
    as_owner(ledger, f"UPDATE {table} SET {column} = {value} WHERE leaf_index = {leaf}")
    assert leaf in leaves(ledger.audit(), "projection")


def test_a_row_that_no_entry_makes_names_its_leaf(ledger):
    copied = f"SELECT 6, log_no, rule FROM decision_rules WHERE leaf_index = {TARGET}"
    as_owner(ledger, f"INSERT INTO decision_rules (leaf_index, log_no, rule) {copied}")
    report = ledger.audit()
    assert {(finding.check, finding.leaf, finding.place) for finding in report.findings} == {
        ("projection", 6, "decision_rules")
    }


def test_a_rule_that_was_added_names_the_leaf(ledger):
    as_owner(
        ledger,
        "INSERT INTO names (log_no, name_no, name) VALUES (1, 900, 'another')",
        f"INSERT INTO decision_rules (log_no, leaf_index, rule) VALUES (1, {TARGET}, 900)",
    )
    assert leaves(ledger.audit(), "projection") == {TARGET}


def test_the_time_of_receipt_is_the_one_column_that_the_log_does_not_prove(ledger):
    # Pins a known gap, which `tables.records` states.
    as_owner(ledger, "UPDATE records SET received_ms = 1")
    assert ledger.audit().clean


# --- the vault -------------------------------------------------------------------------------------------------------


def test_a_changed_ciphertext_names_leaf_and_field(ledger):
    as_owner(
        ledger,
        "UPDATE vault_payloads SET ciphertext = CAST(substr(ciphertext, 1, length(ciphertext) - 1) || '!' AS BLOB) "
        f"WHERE leaf_index = {TARGET} AND field = 'message'",
    )
    report = ledger.audit()
    assert [(finding.check, finding.leaf, finding.place) for finding in report.findings] == [
        ("vault", TARGET, "message")
    ]


@pytest.mark.parametrize("field", ["message", "request"])
def test_payloads_exchanged_between_two_records_name_both_leaves(ledger, field):
    as_owner(
        ledger,
        "UPDATE vault_payloads SET field = field || '!' WHERE leaf_index = :first AND field = :field",
        "UPDATE vault_payloads SET leaf_index = :first WHERE leaf_index = :second AND field = :field",
        "UPDATE vault_payloads SET leaf_index = :second, field = :field "
        "WHERE leaf_index = :first AND field = :field || '!'",
        first=TARGET,
        second=5,
        field=field,
    )
    report = ledger.audit()
    assert {(f.check, f.leaf, f.place) for f in report.findings} == {("vault", TARGET, field), ("vault", 5, field)}


def test_payloads_exchanged_between_two_fields_name_the_leaf(ledger):
    as_owner(
        ledger,
        "UPDATE vault_payloads SET field = 'x' WHERE field = 'message'",
        "UPDATE vault_payloads SET field = 'message' WHERE field = 'request'",
        "UPDATE vault_payloads SET field = 'request' WHERE field = 'x'",
    )
    assert leaves(ledger.audit(), "vault") == {TARGET, 4, 5}


def test_a_payload_that_was_deleted_names_leaf_and_field(ledger):
    as_owner(ledger, "DELETE FROM vault_payloads WHERE field = 'request'")
    report = ledger.audit()
    assert {(f.check, f.leaf, f.place) for f in report.findings} == {
        ("vault", leaf, "request") for leaf in (TARGET, 4, 5)
    }


def test_a_payload_under_a_made_up_subject_is_no_erasure(ledger):
    as_owner(ledger, "UPDATE vault_payloads SET subject = '00000000000000000000000000000000'")
    assert leaves(ledger.audit(), "vault") == {TARGET, 4, 5}


def destroy_key(ledger: EmbeddedLedger, subject: str) -> None:
    ledger.vault._keys._path(LOG_ID, subject).unlink()


def test_a_key_that_was_destroyed_without_a_tombstone_names_the_leaves(ledger):
    destroy_key(ledger, USER)
    report = ledger.audit()
    assert {(f.check, f.leaf, f.place) for f in report.findings} == {
        *(("vault", leaf, field) for leaf in (TARGET, 5) for field in ("message", "request")),
        ("vault", TARGET, "masked_request"),
    }
    assert report.checked["erased payloads"] == 5


def test_an_erasure_with_its_tombstone_is_clean_and_counted(ledger):
    destroy_key(ledger, USER)
    ledger.publisher.load()
    service = Enforcer(seq=10, time_ms=NOW_MS + 1000, running_count=2)
    tombstone = Tombstone(subject=USER, payloads=5, reason="erasure", actor="4" * 32)
    ledger.append(pending(service.record(tombstone)))
    ledger.publish()
    report = ledger.audit()
    assert report.findings == []
    assert report.checked["erased payloads"] == 5
    assert report.checked["payloads"] == 2


def test_a_tombstone_of_somebody_else_excuses_nothing(ledger):
    destroy_key(ledger, USER)
    ledger.publisher.load()
    service = Enforcer(seq=10, time_ms=NOW_MS + 1000, running_count=2)
    tombstone = Tombstone(subject="7" * 32, payloads=4, reason="erasure", actor="4" * 32)
    ledger.append(pending(service.record(tombstone)))
    ledger.publish()
    assert leaves(ledger.audit(), "vault") == {TARGET, 5}


# --- whole trees, by an attacker without keys ------------------------------------------------------------------------


def rewritten(ledger: EmbeddedLedger) -> list[bytes]:
    """Return the entries with one decision turned round."""
    entries = stored_entries(ledger)
    entries[TARGET] = change(entries[TARGET], ["body", "enforcement"], lambda _: "allow")
    return entries


def test_a_tree_rewritten_consistently_does_not_lead_to_the_signed_root(ledger):
    write_tree(folder(ledger), rewritten(ledger))
    report = outside_audit(ledger)
    assert findings(report, "leaf") == []
    assert findings(report, "tile") == []
    assert [finding.place for finding in findings(report, "root")] == ["checkpoint 7"]
    assert leaves(report, "record") == {TARGET}


STRANGERS = [LocalSigner(make_key("log", ED25519, seed=8)), LocalSigner(make_key("log", MLDSA44, seed=9))]


@pytest.mark.parametrize("held", [(), (0,), (1,)], ids=["no key", "Ed25519 alone", "ML-DSA alone"])
def test_a_log_rewritten_without_both_keys_of_the_log_is_not_signed(ledger, held):
    signers = [ledger.signers[position] if position in held else STRANGERS[position] for position in range(2)]
    write_log(folder(ledger), rewritten(ledger), signers, NOW_MS // 1000)
    report = outside_audit(ledger)
    assert [finding.check for finding in report.findings] == ["checkpoint"]
    assert report.head is None


def test_a_checkpoint_whose_root_was_exchanged_is_not_signed(ledger):
    checkpoint = folder(ledger) / CHECKPOINT_PATH
    edge = write_tree(folder(ledger), rewritten(ledger))
    lines = checkpoint.read_text().split("\n")
    lines[2] = msgspec.json.encode(bytes(edge.root())).decode().strip('"')
    checkpoint.write_text("\n".join(lines))
    assert [finding.check for finding in outside_audit(ledger).findings] == ["checkpoint"]


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", b"\xff"])
def test_a_damaged_checkpoint_is_found(ledger, damage):
    (folder(ledger) / CHECKPOINT_PATH).write_bytes(damage)
    assert [finding.check for finding in outside_audit(ledger).findings] == ["checkpoint"]


# --- attackers with keys, and what others keep -----------------------------------------------------------------------


def test_a_log_rewritten_with_the_logs_keys_does_not_agree_with_an_anchored_checkpoint(ledger):
    anchored = ledger.anchored_checkpoints()
    write_log(folder(ledger), rewritten(ledger), ledger.signers, NOW_MS // 1000)
    report = outside_audit(ledger, *anchored)
    assert [finding.place for finding in findings(report, "root")] == ["checkpoint 7"]
    assert leaves(report, "record") == {TARGET}, "the enforcer's key was not among those stolen"


def resigned(ledger: EmbeddedLedger) -> list[bytes]:
    """Return the entries with one decision turned round and signed by its enforcer's key."""
    entries = rewritten(ledger)
    key = Enforcer(enforcer_id="gateway-1", seed=11).key
    entries[TARGET] = encode_record(sign_record(decode_entry(entries[TARGET]), key))
    return entries


def test_a_log_rewritten_with_every_key_does_not_agree_with_an_anchored_checkpoint(ledger):
    anchored = ledger.anchored_checkpoints()
    write_log(folder(ledger), resigned(ledger), ledger.signers, NOW_MS // 1000)
    report = outside_audit(ledger, *anchored)
    assert [finding.check for finding in report.findings] == ["root"]


def test_a_log_rewritten_with_every_key_and_no_outside_witness_is_not_noticed(ledger):
    # Pins what no log can do alone (invariant 11): it is why checkpoints are anchored and witnessed.
    write_log(folder(ledger), resigned(ledger), ledger.signers, NOW_MS // 1000)
    assert outside_audit(ledger).clean


def test_a_log_that_was_cut_short_does_not_agree_with_a_larger_checkpoint_that_is_known(ledger):
    anchored = ledger.anchored_checkpoints()
    write_log(folder(ledger), stored_entries(ledger)[:5], ledger.signers, NOW_MS // 1000)
    report = outside_audit(ledger, *anchored)
    assert [finding.check for finding in report.findings] == ["checkpoint"]
    assert "7 leaves is known, the log shows 5" in report.findings[0].reason


def test_a_log_whose_checkpoint_was_taken_away_does_not_agree_with_one_that_is_known(ledger):
    anchored = ledger.anchored_checkpoints()
    (folder(ledger) / CHECKPOINT_PATH).unlink()
    report = outside_audit(ledger, *anchored)
    assert [finding.check for finding in report.findings] == ["checkpoint"]
    assert "7 leaves is known, the log shows 0" in report.findings[0].reason


def test_a_kept_checkpoint_that_nobody_of_us_signed_is_found(ledger):
    kept = ledger.anchored_checkpoints()[0].replace(b"\n7\n", b"\n6\n", 1)
    report = outside_audit(ledger, kept, b"not a checkpoint")
    assert [(f.check, f.place) for f in report.findings] == [("checkpoint", "a kept checkpoint")] * 2


def test_every_earlier_checkpoint_is_compared_with_the_root_of_its_size(ledger):
    entries = stored_entries(ledger)
    elsewhere = ledger.root / "elsewhere"
    honest = [write_log(elsewhere, entries[:size], ledger.signers, NOW_MS // 1000) for size in (1, 3, 6)]
    assert outside_audit(ledger, *honest).clean
    forged = write_log(elsewhere, [*resigned(ledger)[:3], entries[5]], ledger.signers, NOW_MS // 1000)
    report = outside_audit(ledger, *honest, forged)
    assert [(finding.check, finding.place) for finding in report.findings] == [("root", "checkpoint 4")]


def test_the_directory_of_another_log_is_found_record_by_record(ledger):
    report = Auditor("other", ledger.tiles, ledger.policy).audit()
    assert report.head is None  # the other log has no directory here
    folder(ledger).rename(folder(ledger).with_name("other"))
    report = Auditor("other", ledger.tiles, ledger.policy).audit()
    assert leaves(report, "record") == set(range(7))


def test_a_record_that_stands_twice_names_the_second_leaf(ledger):
    entries = stored_entries(ledger)
    write_log(folder(ledger), [*entries, entries[4]], ledger.signers, NOW_MS // 1000)
    report = outside_audit(ledger)
    assert leaves(report, "record") == {7}
    assert [stream.verdict for stream in report.streams if stream.enforcer_id == "service"] == [Verdict.GAP]


def test_an_enforcer_that_nobody_introduced_names_its_leaves(ledger):
    entries = stored_entries(ledger)
    stranger = Enforcer(enforcer_id="gateway-7", seed=77)
    forged = [encode_record(stranger.record(body)) for body in (stranger.introduction(), stranger.heartbeat())]
    write_log(folder(ledger), [*entries, *forged], ledger.signers, NOW_MS // 1000)
    assert leaves(outside_audit(ledger), "record") == {7, 8}


def test_a_log_whose_first_leaf_introduces_nobody_is_found_record_by_record(ledger):
    write_log(folder(ledger), stored_entries(ledger)[1:], ledger.signers, NOW_MS // 1000)
    assert leaves(outside_audit(ledger), "record") == set(range(6))


# --- keys that the log itself declared compromised ------------------------------------------------------------------


def declare(ledger: EmbeddedLedger, action: str = "compromised", last_size: int | None = None) -> None:
    """Let the log say of both its own keys that they are not to be believed."""
    for signer in ledger.signers:
        key = signer.verifier_key
        algorithm = ED25519 if key.signature_type == SignatureType.ED25519 else MLDSA44
        body = KeyEvent(
            action=action,
            purpose="log",
            algorithm=algorithm,
            subject=key.name,
            key_id=key.key_id.hex(),
            last_size=last_size,
        )
        ledger.append(pending(ledger.service.record(body)))


@pytest.mark.parametrize("last_size", [None, 3])
def test_a_checkpoint_signed_by_keys_that_the_log_calls_compromised_is_found(tmp_path, last_size):
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        declare(ledger, last_size=last_size)
        ledger.decide()
        ledger.publish()
        report = ledger.audit()
    assert [(finding.check, finding.place) for finding in report.findings] == [("checkpoint", "checkpoint")]
    assert "by a key that counts for this tree size" in report.findings[0].reason


def test_a_log_that_goes_on_under_new_keys_is_clean_and_tells_of_the_old_ones(tmp_path):
    renewed = [LocalSigner(make_key("log", ED25519, seed=41)), LocalSigner(make_key("log", MLDSA44, seed=42))]
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        ledger.decide()
        before = ledger.publish()
        declare(ledger, last_size=1)
        ledger.publish()
        entries = list(ledger.prover.entries(0, 4, 4))
        write_log(folder(ledger), entries, renewed, NOW_MS // 1000)
        policy = TrustPolicy(logs=(*ledger.policy.logs, *(signer.verifier_key for signer in renewed)))
        report = Auditor(LOG_ID, ledger.tiles, policy, other_checkpoints=[before]).audit()
    assert report.clean
    told = [("checkpoint", None), ("key", 2), ("key", 3), ("simulated", None)]
    assert [(notice.check, notice.leaf) for notice in report.notices] == told


def test_records_signed_after_a_compromise_are_counted_and_leave_the_log_clean(ledger):
    entries = stored_entries(ledger)
    service = Enforcer(seq=99)
    body = service.introduction(Enforcer(enforcer_id="gateway-1", seed=11))
    declared = service.record(msgspec.structs.replace(body, action="compromised", public_key=None, last_size=2))
    write_log(folder(ledger), [*entries, encode_record(declared)], ledger.signers, NOW_MS // 1000)
    signed = [leaf for leaf, entry in enumerate(entries) if decode_entry(entry).enforcer_id == "gateway-1"]
    report = outside_audit(ledger)
    assert report.clean
    notice, _simulated = report.notices
    assert (notice.check, notice.leaf) == ("key", 7)
    assert f"it signed {len(signed)} records from leaf {signed[0]} on" in notice.reason


# --- what could not be read is no finding ----------------------------------------------------------------------------


class Failing(FaultyTileStore):
    """A tile store that stops answering after some reads."""

    def __init__(self, inner: DirectoryTileStore, reads: int) -> None:
        super().__init__(inner, Faults())
        self.left = reads

    def get(self, log_id: str, path: str) -> bytes:
        if self.left == 0:
            raise StorageError("the bucket does not answer")
        self.left -= 1
        return super().get(log_id, path)


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_a_tile_store_that_fails_ends_the_audit_without_a_verdict(ledger, reads):
    with pytest.raises(StorageError):
        Auditor(LOG_ID, Failing(ledger.tiles, reads), ledger.policy).audit()


def test_a_projection_that_cannot_be_read_ends_the_audit_without_a_verdict(ledger, monkeypatch):
    def rows(*_: object) -> None:
        raise StorageError("the database does not answer")

    monkeypatch.setattr(SQLCatalog, "rows", rows)
    with pytest.raises(StorageError):
        ledger.audit()


def test_a_vault_that_cannot_be_read_ends_the_audit_without_a_verdict(ledger, monkeypatch):
    def opened(*_: object) -> None:
        raise StorageError("the database does not answer")

    monkeypatch.setattr(Vault, "open", opened)
    with pytest.raises(StorageError):
        ledger.audit()


def test_findings_hold_no_vaulted_value(ledger):
    as_owner(ledger, "UPDATE vault_payloads SET ciphertext = zeroblob(100)")
    write_bundle(folder(ledger), rewritten(ledger))
    report = ledger.audit()
    assert report.findings
    for finding in report.findings:
        assert "jsonrpc" not in finding.reason
        assert USER not in finding.reason


def test_a_decision_is_what_these_tests_tamper_with(ledger):
    assert isinstance(decode_entry(stored_entries(ledger)[TARGET]).body, Decision)
