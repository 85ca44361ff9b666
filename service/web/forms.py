"""What a form must bring before anything is done: bounded, from our own page, with the page's secret.

Three checks stand behind each other: the cookie is SameSite=Strict, the browser says that the request comes from our
own origin, and the form carries a secret that another site cannot read.

Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet; Fetch Metadata Request Headers, W3C.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request

from ledger.errors import MalformedError
from service.api.common import read_body
from service.problems import ForbiddenError

__all__ = ["CSRF_FIELD", "check_secret", "read_form", "read_own_form", "require_same_origin"]

CSRF_FIELD: Final = "csrf"
_MAX_FORM_BYTES: Final = 8 * 1024
_MAX_FIELDS: Final = 16


def require_same_origin(headers: Mapping[str, str], external_url: str) -> None:
    """Refuse a form that another site sent.

    Every browser of today says where a POST comes from, by ``Origin`` or ``Sec-Fetch-Site``; a request that says
    neither is refused, and both must be right where both are there.

    Args:
        headers: The request's headers.
        external_url: How browsers reach the service, where that differs from the ``Host`` header.

    Raises:
        ForbiddenError: Another origin, or none is named.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        raise ForbiddenError("the browser did not say where the form comes from")
    if site is not None and site != "same-origin":
        raise ForbiddenError("the form was sent from another site")
    if origin is not None and not _is_ours(origin, headers.get("host", ""), external_url):
        raise ForbiddenError("the form was sent from another site")


def _is_ours(origin: str, host: str, external_url: str) -> bool:
    try:
        parts, external = urlsplit(origin), urlsplit(external_url)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return False  # "null" above all
    return parts.netloc == host or (parts.scheme, parts.netloc) == (external.scheme, external.netloc)


def check_secret(expected: str, given: str | None) -> None:
    """Refuse a form without the secret of the session or page that it claims to come from.

    Raises:
        ForbiddenError: It is missing or another one.
    """
    if not expected or given is None or not hmac.compare_digest(expected.encode(), given.encode()):
        raise ForbiddenError("the form is out of date; open the page again and send it from there")


async def read_form(request: Request) -> dict[str, str]:
    """Read a form's fields.

    Raises:
        Problem: It is too large.
        MalformedError: Not an URL-encoded form, too many fields, or one of them twice.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise MalformedError("not an URL-encoded form")
    body = await read_body(request, _MAX_FORM_BYTES)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:  # UnicodeDecodeError among them
        raise MalformedError("not an URL-encoded form") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise MalformedError("a form field is there twice")
    return fields


async def read_own_form(request: Request, *, secret: str, external_url: str) -> dict[str, str]:
    """Read the fields of a form of a visitor who is logged in, if it came from a page of ours that he was shown.

    Args:
        request: What was sent.
        secret: Of his session.
        external_url: As `require_same_origin` takes it.

    Raises:
        ForbiddenError: It came from elsewhere.
        Problem: It is too large.
        MalformedError: It is none.
    """
    require_same_origin(request.headers, external_url)
    form = await read_form(request)
    check_secret(secret, form.get(CSRF_FIELD))
    return form
