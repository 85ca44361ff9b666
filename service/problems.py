"""Errors over HTTP: RFC 9457 problem details.

Every error of the core has one status and one type; whatever else happens is a 500 that says nothing of its cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import orjson
import structlog
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from ledger.errors import (
    CommitmentError,
    ConflictError,
    DependencyError,
    ErasedError,
    EvidenceError,
    HeldError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    PolicyError,
    PrunedError,
    StateError,
    TallystickError,
    UnknownBundleError,
    VerificationError,
)
from service.failures import describe

__all__ = [
    "ForbiddenError",
    "PersonNeededError",
    "Problem",
    "UnauthenticatedError",
    "control_characters",
    "install",
    "internal_error",
    "kind_of",
    "problem_response",
]

_log = structlog.get_logger()

_MEDIA_TYPE: Final = "application/problem+json"
_TYPE_PREFIX: Final = "urn:tallystick:problem:"
_RETRY_SECONDS: Final = "1"
_MAX_DETAIL_CHARS: Final = 500
"""A detail may name a field of the request, and a field's name may be as long as the request."""
_PATH_CHARS: Final = "/:@!$&'()*+,;=~"
"""What may stand in the path of an URI beside letters, digits and percent-encoded bytes (RFC 3986 section 3.3)."""


class ForbiddenError(TallystickError):
    """The caller is known and may not do this."""


class PersonNeededError(ForbiddenError):
    """The caller's role holds the permission, but it takes a person who logged in, and the token is a machine's."""


class UnauthenticatedError(TallystickError):
    """The caller did not prove who it is."""


class Problem(HTTPException):
    """A problem raised by a route itself.

    Attributes:
        slug: Last part of the problem's type.
        title: Same words for every problem of the type.
        members: Further members of the document.
    """

    def __init__(self, status: int, slug: str, title: str, detail: str, **members: object) -> None:
        """Prepare a problem document."""
        super().__init__(status_code=status, detail=detail)
        self.slug = slug
        self.title = title
        self.members = members


# The first class that fits decides; subclasses stand before their parents.
_MAPPING: Final[tuple[tuple[type[TallystickError], int, str, str], ...]] = (
    (UnauthenticatedError, 401, "unauthenticated", "Not authenticated"),
    (PersonNeededError, 403, "person-needed", "A person has to do this"),
    (ForbiddenError, 403, "forbidden", "Not permitted"),
    (UnknownBundleError, 404, "unknown-bundle", "Unknown bundle"),
    (NotFoundError, 404, "not-found", "Not found"),
    (ErasedError, 410, "erased", "Payload erased"),
    (PrunedError, 410, "pruned", "No longer served"),
    (ConflictError, 409, "conflict", "Conflict"),
    (HeldError, 409, "held", "Held"),
    (OverloadedError, 429, "overloaded", "Too many records wait"),
    (MalformedError, 400, "malformed", "Malformed"),
    (CommitmentError, 422, "commitment", "Opening does not match"),
    (VerificationError, 422, "unverifiable", "Does not verify"),
    (PolicyError, 422, "policy", "Policy cannot be used"),
    (EvidenceError, 422, "evidence", "Evidence cannot be produced"),
    (DependencyError, 503, "unavailable", "Temporarily unavailable"),
    (StateError, 503, "unavailable", "Temporarily unavailable"),
)


def problem_response(
    status: int,
    slug: str,
    title: str,
    detail: str,
    *,
    instance: str,
    headers: Mapping[str, str] | None = None,
    **members: object,
) -> Response:
    """Return a problem document.

    Args:
        status: HTTP status.
        slug: Last part of the problem's type.
        title: Same words for every problem of the type.
        detail: What is wrong this time; never a vaulted value.
        instance: Path of the request, decoded.
        headers: Further headers.
        members: Further members of the document.
    """
    document = {
        "type": f"{_TYPE_PREFIX}{slug}",
        "title": title,
        "status": status,
        "detail": detail if len(detail) <= _MAX_DETAIL_CHARS else f"{detail[:_MAX_DETAIL_CHARS]}…",
        "instance": quote(instance, safe=_PATH_CHARS, errors="replace"),
        **members,
    }
    more = dict(headers or {})
    if status in (429, 503):
        more.setdefault("Retry-After", _RETRY_SECONDS)
    if status == 401:  # noqa: PLR2004  # RFC 9110 section 15.5.2
        more.setdefault("WWW-Authenticate", 'Bearer realm="tallystick"')
    return Response(orjson.dumps(document), status_code=status, media_type=_MEDIA_TYPE, headers=more)


def kind_of(error: Exception) -> tuple[int, str, str] | None:
    """Return HTTP status, type and title of an error, or None if it has none and says nothing to the outside."""
    return next(((status, slug, title) for kind, status, slug, title in _MAPPING if isinstance(error, kind)), None)


async def _on_tallystick_error(request: Request, error: Exception) -> Response:
    found = kind_of(error)
    if found is None:
        _log.error("request_failed", **describe(error))
        return internal_error(request.url.path)
    return problem_response(*found, str(error), instance=request.url.path)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    headers = error.headers
    if isinstance(error, Problem):
        return problem_response(
            error.status_code,
            error.slug,
            error.title,
            error.detail,
            instance=request.url.path,
            headers=headers,
            **error.members,
        )
    return problem_response(
        error.status_code,
        f"http-{error.status_code}",
        error.detail,
        error.detail,
        instance=request.url.path,
        headers=headers,
    )


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The input itself stays out: it may be what the vault is for.
    errors = [{"at": ".".join(map(str, item["loc"])), "reason": item["msg"]} for item in error.errors()]
    return problem_response(
        422,
        "invalid-request",
        "Invalid request",
        "a parameter is missing or wrong",
        instance=request.url.path,
        errors=errors,
    )


def internal_error(path: str) -> Response:
    """Return the answer to a request that failed for no reason that is anybody's to know."""
    detail = "the request failed; nothing of it was acknowledged"
    return problem_response(500, "internal", "Internal error", detail, instance=path)


def control_characters(path: str) -> Response:
    """Return the answer to a request for a path that holds control characters."""
    return problem_response(400, "malformed", "Malformed", "a path holds no control characters", instance=path)


def install(app: FastAPI) -> None:
    """Let an application answer every error that it knows with a problem document; others are `app`'s to contain."""
    app.add_exception_handler(TallystickError, _on_tallystick_error)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
