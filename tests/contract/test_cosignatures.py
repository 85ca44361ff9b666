"""What every `CosignatureStore` and `TimestampStore` promises: SQLite, PostgreSQL."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Engine

from ledger.database import writing
from ledger.envelopes import ED25519
from ledger.errors import StorageError
from ledger.notes import NoteSignature, VerifierKey
from ledger.ports import KeptTimestamp
from ledger.stores.cosignatures import SQLCosignatures
from ledger.stores.timestamps import SQLTimestamps
from migrations.schema import _config
from tests.support.ledger import LOG_ID, NOW_MS, make_key

KEYS = tuple(make_key("log", ED25519, f"w.example/{seed}", seed=seed).verifier_key for seed in (1, 2, 3))


def line(key: VerifierKey, signature: bytes = b"\x00\xff signature") -> NoteSignature:
    return NoteSignature(key.name, key.key_id, signature)


def stamp(size: int, token: bytes = b"\x30\x00") -> KeptTimestamp:
    return KeptTimestamp(size=size, checkpoint=b"checkpoint", token=token, time_ms=NOW_MS, kept_ms=NOW_MS + 5)


@pytest.fixture
def cosignatures(engine: Engine) -> SQLCosignatures:
    return SQLCosignatures(engine)


@pytest.fixture
def timestamps(engine: Engine) -> SQLTimestamps:
    return SQLTimestamps(engine)


def test_cosignatures_come_back_as_they_were_kept(cosignatures):
    wanted = {KEYS[0]: line(KEYS[0]), KEYS[1]: line(KEYS[1], b"two")}
    cosignatures.keep(LOG_ID, 7, wanted, now_ms=NOW_MS)
    assert cosignatures.kept(LOG_ID, 7, KEYS) == wanted


def test_only_the_keys_that_are_asked_for_come_back(cosignatures):
    cosignatures.keep(LOG_ID, 7, {key: line(key) for key in KEYS}, now_ms=NOW_MS)
    assert list(cosignatures.kept(LOG_ID, 7, KEYS[:1])) == [KEYS[0]]
    assert cosignatures.kept(LOG_ID, 7, []) == {}


def test_the_first_cosignature_of_a_key_and_size_stays(cosignatures):
    cosignatures.keep(LOG_ID, 7, {KEYS[0]: line(KEYS[0], b"first")}, now_ms=NOW_MS)
    cosignatures.keep(LOG_ID, 7, {KEYS[0]: line(KEYS[0], b"later"), KEYS[1]: line(KEYS[1])}, now_ms=NOW_MS)
    kept = cosignatures.kept(LOG_ID, 7, KEYS)
    assert (kept[KEYS[0]].signature, set(kept)) == (b"first", {KEYS[0], KEYS[1]})


def test_sizes_and_logs_are_apart(cosignatures):
    cosignatures.keep(LOG_ID, 7, {KEYS[0]: line(KEYS[0])}, now_ms=NOW_MS)
    assert cosignatures.kept(LOG_ID, 8, KEYS) == {}
    assert cosignatures.kept("other", 7, KEYS) == {}
    assert cosignatures.last_size("other", KEYS[0]) == 0


def test_the_last_size_of_a_key_is_the_largest_one(cosignatures):
    assert cosignatures.last_size(LOG_ID, KEYS[0]) == 0
    for size in (7, 2**40, 9):
        cosignatures.keep(LOG_ID, size, {KEYS[0]: line(KEYS[0])}, now_ms=NOW_MS)
    assert cosignatures.last_size(LOG_ID, KEYS[0]) == 2**40
    assert cosignatures.last_size(LOG_ID, KEYS[1]) == 0


def test_there_is_no_timestamp_before_the_first(timestamps):
    assert timestamps.newest(LOG_ID) is None


def test_the_newest_timestamp_is_that_of_the_largest_tree(timestamps):
    for size in (3, 2**40, 9):
        timestamps.keep(LOG_ID, stamp(size))
    timestamps.keep("other", stamp(2**41))
    assert timestamps.newest(LOG_ID) == stamp(2**40)


def test_the_first_timestamp_of_a_size_stays(timestamps):
    timestamps.keep(LOG_ID, stamp(3, b"first"))
    timestamps.keep(LOG_ID, stamp(3, b"later"))
    assert timestamps.newest(LOG_ID) == stamp(3, b"first")


def test_a_database_that_fails_is_a_storage_error(engine, cosignatures, timestamps):
    config = _config()
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    calls = (
        lambda: cosignatures.keep(LOG_ID, 7, {KEYS[0]: line(KEYS[0])}, now_ms=NOW_MS),
        lambda: cosignatures.kept(LOG_ID, 7, KEYS),
        lambda: cosignatures.last_size(LOG_ID, KEYS[0]),
        lambda: timestamps.keep(LOG_ID, stamp(3)),
        lambda: timestamps.newest(LOG_ID),
    )
    for call in calls:
        with pytest.raises(StorageError):
            call()
