"""Retention policies: what they say, what is none, and when a bucket's time is over."""

from __future__ import annotations

from datetime import date

import pytest

from ledger.errors import ConfigError
from ledger.records import Record, field_classes
from ledger.retention import RetentionPolicy, parse_retention
from ledger.subjects import DAY_MS, Bucket

POLICY = {
    "vault": {"decision": "90d", "outcome": "30d", "default": "365d"},
    "log": {"default": "7y"},
    "tenants": {"acme": {"vault": {"decision": "30d"}}, "globex": {"anchor": {"default": "1d"}}},
}


def test_a_class_is_that_of_the_type_else_the_default_else_for_ever():
    policy = parse_retention(POLICY, "main")
    asked = [("vault", "decision"), ("vault", "outcome"), ("vault", "access"), ("log", "key"), ("anchor", "key")]
    assert [policy.days(*pair) for pair in asked] == [90, 30, 365, 7 * 366, None]


def test_a_tenants_own_classes_stand_over_those_for_all():
    assert parse_retention(POLICY, "acme").days("vault", "decision") == 30
    assert parse_retention(POLICY, "acme").days("vault", "outcome") == 30
    assert parse_retention(POLICY, "globex").anchor == {"default": 1}


def test_the_classes_can_stand_in_a_record_and_have_one_digest():
    policy = parse_retention(POLICY, "acme")
    assert policy.classes == ("vault:decision:30d", "vault:default:365d", "vault:outcome:30d", "log:default:2562d")
    assert policy.digest == parse_retention(POLICY, "acme").digest != parse_retention(POLICY, "main").digest
    assert field_classes(Record)["body.retention.classes[]"] == "public"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "has the members"),
        ([], "has the members"),
        ({"volt": {}}, "there is no place volt"),
        ({"vault": "90d"}, "vault has record types"),
        ({"vault": None}, "vault has record types"),
        ({"vault": {"decisions": "90d"}}, "vault.decisions: there is no such record type"),
        ({"vault": {"decision": 90}}, "vault.decision: a time is written as 90d"),
        ({"vault": {"decision": "0d"}}, "written as"),
        ({"vault": {"decision": "-1d"}}, "written as"),
        ({"vault": {"decision": "90"}}, "written as"),
        ({"vault": {"decision": "90d\n"}}, "written as"),
        ({"vault": {"decision": "3w"}}, "written as"),
        ({"vault": {"decision": "99999d"}}, "at most"),
        ({"tenants": []}, "tenants by name"),
        ({"tenants": {"globex": {"volt": {}}}}, "tenants.globex: there is no place volt"),
        ({"tenants": {"globex": None}}, "tenants.globex"),
    ],
)
def test_what_is_no_policy_is_refused_by_its_place_also_in_another_tenants_part(value, told):
    with pytest.raises(ConfigError, match=told):
        parse_retention(value, "acme")


BUCKET = Bucket("decision", date(2025, 11, 19))
KEPT = RetentionPolicy(vault={"decision": 2})


def test_a_bucket_expires_when_its_last_payload_has_reached_its_age_and_not_a_moment_before():
    over = BUCKET.end_ms + 2 * DAY_MS
    made = BUCKET.start_ms + 5
    assert [KEPT.expired(BUCKET, made_ms=made, now_ms=now) for now in (0, over - 1, over)] == [False, False, True]


def test_what_has_no_class_is_kept_for_ever():
    assert not KEPT.expired(Bucket("outcome", BUCKET.day), made_ms=0, now_ms=2**53)
    assert not RetentionPolicy().expired(BUCKET, made_ms=0, now_ms=2**53)


def test_a_record_whose_clock_ran_ahead_is_kept_no_longer_than_others():
    ahead = Bucket("decision", date(2099, 1, 1))
    made = BUCKET.start_ms + 5
    assert KEPT.expired(ahead, made_ms=made, now_ms=BUCKET.end_ms + 2 * DAY_MS)
    assert not KEPT.expired(ahead, made_ms=made, now_ms=BUCKET.end_ms + 2 * DAY_MS - 1)
