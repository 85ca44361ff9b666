"""Which versions of gateways a service works with: its own minor version and the one before."""

from __future__ import annotations

import pytest

from service.versions import Standing, standing


@pytest.mark.parametrize(
    ("gateway", "service"),
    [("0.1.0", "0.1.0"), ("0.1.9", "0.1.0"), ("0.1.0", "0.2.0"), ("0.1.0rc1", "0.2.3"), ("1.4.0", "1.5.1")],
)
def test_the_same_minor_version_and_the_one_before_are_accepted(gateway: str, service: str) -> None:
    assert standing(gateway, service) is Standing.ACCEPTED


@pytest.mark.parametrize(
    ("gateway", "service"), [("0.1.0", "0.3.0"), ("1.0.0", "1.2.0"), ("0.9.0", "1.0.0"), ("1.99.0", "2.0.0")]
)
def test_what_is_older_is_too_old(gateway: str, service: str) -> None:
    assert standing(gateway, service) is Standing.TOO_OLD


@pytest.mark.parametrize(("gateway", "service"), [("0.2.0", "0.1.9"), ("1.0.0", "0.9.0")])
def test_a_gateway_is_not_upgraded_before_its_service(gateway: str, service: str) -> None:
    assert standing(gateway, service) is Standing.TOO_NEW


@pytest.mark.parametrize(
    "version", ["", "1", "0.1", "v0.1.0", "0.1.0\n", "00.1.0", "0.1.", "0.\u0661.0", "9999999.0.0", "gateway"]
)
def test_what_is_no_version_is_not_taken_for_one(version: str) -> None:
    assert standing(version, "0.1.0") is Standing.UNKNOWN
