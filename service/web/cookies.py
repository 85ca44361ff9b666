"""The cookies: the login, the secret of a login form that has no session yet, and a login under way at a provider.

``__Host-`` makes browsers refuse the cookie unless it is Secure, for this host alone and for all paths, so that no
neighbouring host can plant one. On a loopback address without TLS, where the operator allowed it
(`Settings.insecure_cookies`), names and flags are plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from fastapi.responses import Response

__all__ = ["Cookies"]

_NAME: Final = "tallystick"
_FORM_SECONDS: Final = 3600


class Cookies:
    """Names, reads, sets and clears our cookies."""

    def __init__(self, *, insecure: bool, session_seconds: int) -> None:
        """Set cookies that a browser sends over plain HTTP only if ``insecure``."""
        prefix = "" if insecure else "__Host-"
        self._secure = not insecure
        self._session_seconds = session_seconds
        self.session_name = f"{prefix}{_NAME}"
        self.form_name = f"{prefix}{_NAME}-form"
        self.attempt_name = f"{prefix}{_NAME}-login"

    def session(self, cookies: Mapping[str, str]) -> str | None:
        """Return the session id that a request carries, or None."""
        return cookies.get(self.session_name) or None

    def form_secret(self, cookies: Mapping[str, str]) -> str | None:
        """Return the secret of the login form that a request carries, or None."""
        return cookies.get(self.form_name) or None

    def set_session(self, response: Response, session_id: str) -> None:
        """Log the browser in; the login form's secret has served."""
        self._set(response, self.session_name, session_id, self._session_seconds)
        self._set(response, self.form_name, "", 0)

    def clear_session(self, response: Response) -> None:
        """Log the browser out."""
        self._set(response, self.session_name, "", 0)

    def set_form_secret(self, response: Response, secret: str) -> None:
        """Give the browser the secret that the login form carries as well."""
        self._set(response, self.form_name, secret, _FORM_SECONDS)

    def attempt(self, cookies: Mapping[str, str]) -> str | None:
        """Return the login under way that a request carries, or None."""
        return cookies.get(self.attempt_name) or None

    def set_attempt(self, response: Response, attempt: str, seconds: int) -> None:
        """Keep a login under way in the browser; it must come along when another site sends the browser back."""
        self._set(response, self.attempt_name, attempt, seconds, same_site="lax")

    def clear_attempt(self, response: Response) -> None:
        """Forget the login under way."""
        self._set(response, self.attempt_name, "", 0, same_site="lax")

    def _set(
        self,
        response: Response,
        name: str,
        value: str,
        seconds: int,
        *,
        same_site: Literal["lax", "strict"] = "strict",
    ) -> None:
        response.set_cookie(
            name, value, max_age=seconds, path="/", secure=self._secure, httponly=True, samesite=same_site
        )
