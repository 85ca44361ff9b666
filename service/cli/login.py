"""``tallystick login``, ``logout`` and ``whoami``: a person at a command line."""

from __future__ import annotations

import time
import webbrowser
from typing import Any, Final

import click
import httpx

from ledger.errors import ConfigError, UpstreamError
from service.cli.client import ServiceClient, open_client
from service.cli.logins import forget_login, keep_login, kept_login, login_file
from service.cli.output import echo_json, json_option, say, with_exit_codes

__all__ = ["login", "logout", "whoami"]

_MAX_SECONDS: Final = 900
_OK: Final = 200
_url_option = click.option(
    "--url", envvar="TALLYSTICK_URL", default="http://127.0.0.1:8787", show_default=True, help="The service."
)


def _post(client: httpx.Client, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
    try:
        answer = client.post(path, data=form)
        said = answer.json()
    except httpx.HTTPError as error:
        raise UpstreamError(f"the service does not answer ({type(error).__name__})") from error
    except ValueError as error:
        raise UpstreamError("the service answers what cannot be read") from error
    if not isinstance(said, dict):
        raise UpstreamError("the service answers what cannot be read")
    return answer.status_code, said


@click.command(short_help="Log in as a person, by a browser on this machine or another.")
@_url_option
@click.option("--log", "log_id", default="", help="Which log, where the service has several.")
@click.option("--no-browser", is_flag=True, help="Only print the address: open it on another machine.")
@json_option
@with_exit_codes
def login(url: str, log_id: str, *, no_browser: bool, as_json: bool) -> None:
    """Log in: open the printed address in a browser, on this machine or any other, and say yes to the code shown here.

    The login is kept in a file for you alone (0600), and used by every command that is given no token. It ends by
    itself, with the login of the browser that let it in.
    """
    with open_client(url) as client:
        status, asked = _post(client, "/login/device", {"log": log_id})
        if status != _OK:
            raise ConfigError("the service logs nobody in that way" + (f" to {log_id}" if log_id else ""))
        page = str(asked["verification_uri_complete"])
        click.echo(f"Open {page}", err=True)
        click.echo(f"and say yes if it shows {asked['user_code']}", err=True)
        if not no_browser:
            webbrowser.open(page)
        kept = _wait(client, asked)
    keep_login(url, kept)
    if as_json:
        echo_json({name: kept[name] for name in ("name", "role", "log_id", "expires_ms")})
    else:
        say(f"{kept['name']} is logged in to {kept['log_id']} as {kept['role']}; the login is in {login_file()}.")


def _wait(client: httpx.Client, asked: dict[str, Any]) -> dict[str, Any]:
    interval = max(1, int(asked.get("interval", 5)))
    until = time.monotonic() + min(int(asked.get("expires_in", _MAX_SECONDS)), _MAX_SECONDS)
    while time.monotonic() < until:
        time.sleep(interval)
        status, said = _post(client, "/login/device/token", {"device_code": str(asked["device_code"])})
        if status == _OK:
            return said
        if said.get("error") == "access_denied":
            raise ConfigError("the login was refused in the browser")
        if said.get("error") != "authorization_pending":
            break
    raise ConfigError("nobody said yes in time: log in again")


@click.command(short_help="End the login of this command line.")
@_url_option
@json_option
@with_exit_codes
def logout(url: str, *, as_json: bool) -> None:
    """End the login at the service, and forget it here; what the service cannot be told is forgotten all the same."""
    kept = kept_login(url)
    if kept is None:
        raise ConfigError(f"nobody is logged in to {url}")
    forget_login(url)
    ended = True
    try:
        ServiceClient(url, str(kept["access_token"])).request("DELETE", "/login/device")
    except ConfigError:
        ended = False  # it had ended before
    if as_json:
        echo_json({"logged_out": True, "ended_now": ended})
    else:
        say("Logged out." if ended else "The login had ended before; it is forgotten here.")


@click.command(short_help="Show who is logged in.")
@_url_option
@json_option
@with_exit_codes
def whoami(url: str, *, as_json: bool) -> None:
    """Show who is logged in to a service from here, as what, and until when."""
    kept = kept_login(url)
    if kept is None:
        raise ConfigError(f"nobody is logged in to {url}: run `tallystick login`")
    left = int(kept.get("expires_ms") or 0) / 1000 - time.time()
    if as_json:
        echo_json({**{name: kept.get(name) for name in ("name", "role", "log_id", "expires_ms")}, "ended": left <= 0})
    elif left <= 0:
        say(f"{kept['name']} was logged in to {kept['log_id']} as {kept['role']}; the login has ended.")
    else:
        say(f"{kept['name']}, {kept['role']} of {kept['log_id']}, for another {int(left // 60)} minutes.")
