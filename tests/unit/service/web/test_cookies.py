"""The flags of the cookies."""

from __future__ import annotations

import pytest
from fastapi.responses import Response

from service.web.cookies import Cookies


def lines(response: Response) -> list[str]:
    return [value.decode() for name, value in response.raw_headers if name == b"set-cookie"]


def parts(line: str) -> tuple[str, set[str]]:
    first, *attributes = line.split("; ")
    return first, {attribute.lower() for attribute in attributes}


def test_the_login_cookie_is_bound_to_the_host_and_out_of_reach_of_scripts_and_other_sites():
    response = Response()
    Cookies(insecure=False, session_seconds=28_800).set_session(response, "id")
    first, attributes = parts(lines(response)[0])
    assert first == "__Host-tallystick=id"
    assert attributes == {"httponly", "secure", "samesite=strict", "path=/", "max-age=28800"}


def test_the_login_forms_cookie_has_the_same_flags_and_another_name():
    response = Response()
    Cookies(insecure=False, session_seconds=60).set_form_secret(response, "secret")
    first, attributes = parts(lines(response)[0])
    assert first == "__Host-tallystick-form=secret"
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= attributes


def test_plain_names_go_with_plain_http_where_the_operator_allowed_it():
    response = Response()
    Cookies(insecure=True, session_seconds=60).set_session(response, "id")
    first, attributes = parts(lines(response)[0])
    assert first == "tallystick=id"
    assert attributes == {"httponly", "samesite=strict", "path=/", "max-age=60"}


@pytest.mark.parametrize("insecure", [False, True])
def test_logging_out_and_in_clears_what_has_served(insecure):
    cookies = Cookies(insecure=insecure, session_seconds=60)
    out, into = Response(), Response()
    cookies.clear_session(out)
    cookies.set_session(into, "id")
    assert f'{cookies.session_name}=""' in lines(out)[0]
    assert "max-age=0" in lines(out)[0].lower()
    assert f'{cookies.form_name}=""' in lines(into)[1]
    assert "max-age=0" in lines(into)[1].lower()


def test_a_cookie_without_the_prefix_is_not_read_where_the_prefix_is_due():
    cookies = Cookies(insecure=False, session_seconds=60)
    assert cookies.session({"tallystick": "planted"}) is None
    assert cookies.form_secret({"tallystick-form": "planted"}) is None
    assert cookies.session({"__Host-tallystick": ""}) is None
