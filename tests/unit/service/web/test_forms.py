"""A form counts only if our own page sent it: the origin, the secret, and the bounds of what is read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from fastapi import HTTPException, Request

from ledger.errors import MalformedError
from service.problems import ForbiddenError
from service.web.forms import check_secret, read_form, require_same_origin

EXTERNAL = "https://ledger.example"
HOST = {"host": "127.0.0.1:8787"}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://ledger.example"},
        {"origin": "http://127.0.0.1:8787", **HOST},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "origin": "https://ledger.example"},
    ],
)
def test_a_form_of_our_own_origin_passes(headers):
    require_same_origin(headers, EXTERNAL)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="neither header"),
        pytest.param({"origin": "https://evil.example"}, id="another site"),
        pytest.param({"origin": "null", **HOST}, id="opaque origin"),
        pytest.param({"origin": "", **HOST}, id="empty origin"),
        pytest.param({"origin": "http://ledger.example"}, id="another scheme"),
        pytest.param({"origin": "https://ledger.example:8443"}, id="another port"),
        pytest.param({"origin": "https://ledger.example.evil.example"}, id="our name as a prefix"),
        pytest.param({"origin": "https://evil.example/ledger.example"}, id="our name in the path"),
        pytest.param({"origin": "http://127.0.0.1:9999", **HOST}, id="another port of this machine"),
        pytest.param({"origin": "file://", "host": ""}, id="a file"),
        pytest.param({"origin": "http://[", **HOST}, id="no URL"),
        pytest.param({"sec-fetch-site": "cross-site"}, id="the browser says cross-site"),
        pytest.param({"sec-fetch-site": "same-site"}, id="a neighbouring host"),
        pytest.param({"sec-fetch-site": "none"}, id="typed, not sent by a page"),
        pytest.param({"sec-fetch-site": "cross-site", "origin": EXTERNAL}, id="site wrong, origin right"),
        pytest.param(
            {"sec-fetch-site": "same-origin", "origin": "https://evil.example"}, id="site right, origin wrong"
        ),
    ],
)
def test_a_form_from_elsewhere_is_refused(headers):
    with pytest.raises(ForbiddenError):
        require_same_origin(headers, EXTERNAL)


def test_the_right_secret_passes():
    check_secret("s3cret", "s3cret")


@pytest.mark.parametrize(
    ("expected", "given"), [("a", None), ("a", ""), ("a", "b"), ("a", "aa"), ("", ""), ("", None), ("a", "é")]
)
def test_a_missing_empty_or_other_secret_is_refused(expected, given):
    with pytest.raises(ForbiddenError):
        check_secret(expected, given)


def form(body: bytes, content_type: str = "application/x-www-form-urlencoded", **headers: str) -> dict[str, str]:
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    raw = [
        (b"content-type", content_type.encode()),
        *((name.encode(), value.encode()) for name, value in headers.items()),
    ]
    hosting = SimpleNamespace(settings=SimpleNamespace(max_body_seconds=5.0))
    app = SimpleNamespace(state=SimpleNamespace(hosting=hosting))
    scope = {"type": "http", "method": "POST", "headers": raw, "app": app}
    return asyncio.run(read_form(Request(scope, receive)))


def test_fields_are_decoded_and_blank_ones_kept():
    assert form(b"token=a%2Bb+c&next=&csrf=x") == {"token": "a+b c", "next": "", "csrf": "x"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"a=1&a=2", "application/x-www-form-urlencoded", id="a field twice"),
        pytest.param(b"&".join(b"f%d=1" % i for i in range(17)), "application/x-www-form-urlencoded", id="too many"),
        pytest.param(b"a=%ff", "application/x-www-form-urlencoded", id="no UTF-8 behind the escape"),
        pytest.param(b"a=\xff", "application/x-www-form-urlencoded", id="no UTF-8"),
        pytest.param(b"a=1", "multipart/form-data; boundary=x", id="multipart"),
        pytest.param(b'{"a": "1"}', "application/json", id="JSON"),
        pytest.param(b"a=1", "text/plain", id="plain text, which any site may send"),
        pytest.param(b"a=1", "", id="no type"),
    ],
)
def test_what_is_no_small_url_encoded_form_is_refused(body, content_type):
    with pytest.raises(MalformedError):
        form(body, content_type)


def test_a_large_form_is_refused():
    with pytest.raises(HTTPException) as caught:
        form(b"token=" + b"x" * 8192)
    assert caught.value.status_code == 413


def test_a_form_that_declares_to_be_large_is_refused_before_it_is_read():
    with pytest.raises(HTTPException) as caught:
        form(b"", **{"content-length": "1000000"})
    assert caught.value.status_code == 413
