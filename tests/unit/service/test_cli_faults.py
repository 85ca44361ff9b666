"""What somebody is told who typed a command wrongly: a line for each fault, in his words, and the status of usage."""

from __future__ import annotations

import click
import httpx
import pytest
from click.testing import CliRunner

from ledger.errors import ConfigError, MalformedError, TallystickError
from service.cli.client import ServiceClient
from service.cli.output import exit_code, with_exit_codes

SERVICE = "http://service.example"
PROBLEM = "urn:tallystick:problem:"


def refused(status: int, **problem: object) -> TallystickError:
    client = ServiceClient(SERVICE, "ts1.acme.x")
    answer = httpx.Response(status, json=problem)
    client._client = httpx.Client(base_url=SERVICE, transport=httpx.MockTransport(lambda _request: answer))
    with pytest.raises(TallystickError) as caught:
        client.get("/v1/decisions")
    return caught.value


def raised(error: Exception) -> tuple[int, list[str]]:
    @click.command()
    @with_exit_codes
    def command() -> None:
        raise error

    result = CliRunner().invoke(command)
    return result.exit_code, result.stderr.splitlines()


# --- faults of a configuration ---------------------------------------------------------------------------------------


def test_each_fault_of_a_configuration_has_its_line():
    assert raised(ConfigError("zone: is wrong\n\nservers[0].mode: is wrong\n")) == (
        64,
        ["tallystick: zone: is wrong", "tallystick: servers[0].mode: is wrong"],
    )


@pytest.mark.parametrize("message", ["", "\n", " \n\t"])
def test_an_error_without_words_is_a_line_still(message):
    assert raised(ConfigError(message)) == (64, ["tallystick: "])


def test_what_any_other_error_quotes_makes_no_line_of_its_own():
    assert raised(MalformedError("the name a\ntallystick: PROVEN")) == (
        2,
        ["tallystick: the name a tallystick: PROVEN"],
    )


# --- refusals of the service -----------------------------------------------------------------------------------------


def test_a_request_of_a_wrong_form_is_an_error_of_usage_that_names_the_parameter_and_no_pattern():
    errors = [
        {"at": "query.agent", "reason": "String should match pattern '^[a-z]\n+$'"},
        {"at": "body.to_ms", "reason": "Input should be greater than 0"},
    ]
    error = refused(422, type=f"{PROBLEM}invalid-request", detail="a parameter is wrong", errors=errors)
    assert (exit_code(error), str(error)) == (
        64,
        "agent: is not of the right form; to_ms: Input should be greater than 0",
    )


@pytest.mark.parametrize(
    ("slug", "code"), [("policy", 2), ("evidence", 2), ("commitment", 1), ("unverifiable", 1), ("unheard-of", 1)]
)
def test_a_422_means_what_its_type_says_and_a_failed_check_where_it_says_nothing(slug, code):
    error = refused(422, type=f"{PROBLEM}{slug}", detail="what is wrong")
    assert (exit_code(error), str(error)) == (code, "what is wrong")


@pytest.mark.parametrize("kind", [None, 7, ["x"], {"a": 1}])
def test_a_type_that_is_none_says_nothing(kind):
    assert exit_code(refused(422, type=kind, detail="what is wrong")) == 1


def test_what_the_service_says_is_one_line():
    assert str(refused(403, detail="the role\nx may not\n")) == "the role x may not"


@pytest.mark.parametrize("url", ["127.0.0.1:8797", "localhost:8787", "ledger.example.com", "//ledger.example.com"])
def test_an_address_without_a_scheme_is_told_what_it_lacks(url):
    with pytest.raises(ConfigError, match=r"starts with http:// or https://"):
        ServiceClient(url, "ts1.acme.x")
