"""The command line's HTTP client: a service's URL and token, and its problems as errors of the core."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import httpx

from ledger.errors import (
    ConfigError,
    ConflictError,
    EvidenceError,
    MalformedError,
    NotFoundError,
    PolicyError,
    StateError,
    UpstreamError,
    VerificationError,
)
from service.cli.output import in_words
from service.settings import MAX_PORT

__all__ = ["ServiceClient", "open_client", "service_options", "service_section"]

_TIMEOUT_SECONDS: Final = 60.0
_TOKEN: Final = re.compile(r"[!-~]{1,256}")
"""What can stand in a header; whether it is a token, the service knows."""
_F = TypeVar("_F", bound=Callable[..., Any])

_ERRORS: Final[Mapping[int, type[Exception]]] = {
    400: MalformedError,
    401: ConfigError,
    403: ConfigError,
    404: NotFoundError,
    409: ConflictError,
    410: StateError,
    413: MalformedError,
    422: VerificationError,
}
"""What a refusal means, by its status."""

_BY_TYPE: Final[Mapping[str, type[Exception]]] = {
    "urn:tallystick:problem:policy": PolicyError,
    "urn:tallystick:problem:evidence": EvidenceError,
}
"""What it means where the problem's type says more than the status."""

_INVALID: Final = "urn:tallystick:problem:invalid-request"
"""The request was not of the form that the route takes: an error of usage here."""

_NO_ADDRESS: Final = "the URL of a service starts with http:// or https://, such as http://127.0.0.1:8787"


def service_options(command: _F) -> _F:
    """Add ``--url`` and ``--token`` to a command."""
    url = click.option(
        "--url", envvar="TALLYSTICK_URL", default="http://127.0.0.1:8787", show_default=True, help="The service."
    )
    token = click.option("--token", envvar="TALLYSTICK_TOKEN", default=None, help="Token; better: TALLYSTICK_TOKEN.")
    return url(token(command))


class ServiceClient:
    """Calls one service with one token; where a command runs, connections end with it."""

    def __init__(self, url: str, token: str | None) -> None:
        """Prepare to call ``url``.

        Raises:
            ConfigError: There is no token, or it cannot be one; or ``url`` is no address of a service.
        """
        if not token:
            token = _logged_in(url)
        if not token:
            raise ConfigError("a token is needed: set TALLYSTICK_TOKEN, or log in with `tallystick login`")
        if _TOKEN.fullmatch(token) is None:
            raise ConfigError("that is no token: a token has the form ts1.…")
        self._client = open_client(url)
        self._client.headers["Authorization"] = f"Bearer {token}"
        if (context := click.get_current_context(silent=True)) is not None:
            context.call_on_close(self._client.close)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401  # httpx's own options
        """Call a route and return its successful answer.

        Raises:
            UpstreamError: The service could not be reached, or failed.
            TallystickError: It refused; the class follows from the status.
        """
        try:
            response = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise UpstreamError(f"the service does not answer ({type(error).__name__})") from error
        if response.is_success:
            return response
        raise _refusal(response)

    def get(self, path: str, **params: object) -> Any:  # noqa: ANN401  # JSON
        """Return the JSON of a GET; parameters that are None are left out."""
        given = {name: str(value) for name, value in params.items() if value is not None}
        return _json(self.request("GET", path, params=given))

    def post(self, path: str, body: object = None, *, content: bytes | None = None) -> Any:  # noqa: ANN401  # JSON
        """Return the JSON of a POST, of a value or of bytes as they are."""
        sent = {"json": body} if content is None else {"content": content}
        return _json(self.request("POST", path, **sent))

    def delete(self, path: str) -> Any:  # noqa: ANN401  # JSON
        """Return the JSON of a DELETE."""
        return _json(self.request("DELETE", path))


def open_client(url: str) -> httpx.Client:
    """Return an HTTP client for a service, which speaks for nobody yet.

    Raises:
        ConfigError: ``url`` is no address of a service.
    """
    # The environment's proxies are left alone: a token must go to the service and nowhere else.
    address = _address(url)
    return httpx.Client(
        base_url=address,
        verify=_context() if address.scheme == "https" else True,
        timeout=_TIMEOUT_SECONDS,
        trust_env=bool(os.environ.get("TALLYSTICK_USE_PROXY")),
    )


def _logged_in(url: str) -> str | None:
    """Return the token of a person's login to a service, if one is kept here."""
    from service.cli.logins import kept_login

    kept = kept_login(url)
    return None if kept is None else str(kept["access_token"])


def _context() -> ssl.SSLContext:
    """Return what TLS shows and asks for on the way to the service: three environment variables, none needed."""
    # Only here: most commands call no service by TLS, and these libraries take their time to load.
    from enforcement.tls_client import ClientRules, client_context
    from enforcement.tls_files import read_material
    from ledger.clock import SystemClock

    ca, certificate, key = (os.environ.get(f"TALLYSTICK_{name}") for name in ("CA", "CLIENT_CERTIFICATE", "CLIENT_KEY"))
    if bool(certificate) != bool(key):
        raise ConfigError("TALLYSTICK_CLIENT_CERTIFICATE and TALLYSTICK_CLIENT_KEY belong together")
    if key and not key.startswith(("file:", "env:")):
        raise ConfigError("TALLYSTICK_CLIENT_KEY starts with file: or env:")
    shown = Path(certificate) if certificate else None
    material = read_material(shown, key or None, Path(ca) if ca else None, SystemClock())
    return client_context(material, ClientRules())


def service_section(url: str, token: str) -> dict[str, Any]:
    """Return the section of a gateway's configuration that leads to a service, as it was reached from here.

    What a gateway shows of itself is its own, and no matter of whoever prepares it.

    Args:
        url: The service.
        token: URI of the gateway's token.
    """
    section: dict[str, Any] = {"url": url, "token": token}
    ca = os.environ.get("TALLYSTICK_CA")
    if ca and url.startswith("https:"):
        section["tls"] = {"ca": str(Path(ca).resolve())}
    return section


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(_NO_ADDRESS) from error
    if address.scheme not in ("http", "https") or not address.host or (address.port or 0) > MAX_PORT:
        raise ConfigError(_NO_ADDRESS)
    return address


class _Answer(dict[str, Any]):
    """A JSON object of an answer, in which a member that is not there is the service's fault and no bug of ours."""

    def __missing__(self, name: str) -> NoReturn:
        raise UpstreamError(f"the service's answer has no {name}: it is of another version, or no Tallystick")


def _json(response: httpx.Response) -> Any:  # noqa: ANN401  # JSON
    try:
        answer = response.json(object_hook=_Answer)
    except (ValueError, RecursionError) as error:
        raise UpstreamError("the service answered with something that is no JSON") from error
    if not isinstance(answer, _Answer):
        raise UpstreamError("the service's answer is no JSON object: it is of another version, or no Tallystick")
    return answer


def _refusal(response: httpx.Response) -> Exception:
    """Return a refusal as an error of the core, in the service's words."""
    kind = _ERRORS.get(response.status_code, UpstreamError)
    try:
        problem = response.json()
        detail = " ".join(str(problem["detail"]).split())
        errors = [(str(item["at"]), str(item["reason"])) for item in problem.get("errors", [])]
    except (ValueError, KeyError, TypeError, RecursionError):
        return kind(f"the service answered {response.status_code}")
    if problem.get("type") == _INVALID:
        # Where it stood in the request is of no use to somebody who typed a command.
        told = [f"{at.rpartition('.')[2]}: {in_words(reason)}" for at, reason in errors]
        return ConfigError("; ".join(told) or detail)
    more = "; ".join(f"{at}: {reason}" for at, reason in errors)
    kind = _BY_TYPE.get(str(problem.get("type")), kind)
    return kind(f"{detail} ({more})" if more else detail)
