"""Where the command line keeps a person's login: one file, for its owner alone, a token for each service."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from ledger.errors import ConfigError
from ledger.files import replace_durably

__all__ = ["forget_login", "keep_login", "kept_login", "login_file"]

_MODE: Final = 0o600


def login_file() -> Path:
    """Return where logins are kept: ``TALLYSTICK_LOGIN_FILE``, or ``tallystick/login.json`` among one's settings."""
    if named := os.environ.get("TALLYSTICK_LOGIN_FILE"):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "tallystick" / "login.json"


def _read() -> dict[str, Any]:
    path = login_file()
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600, log out and in again")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read; remove it and log in again") from error
    return found if isinstance(found, dict) else {}


def _write(logins: dict[str, Any]) -> None:
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_durably(path, json.dumps(logins, indent=2).encode(), mode=_MODE)


def kept_login(url: str) -> dict[str, Any] | None:
    """Return the login to a service, whether it still counts or not; None if there is none.

    Raises:
        ConfigError: The file cannot be read, or others can read it.
    """
    found = _read().get(url.rstrip("/"))
    return found if isinstance(found, dict) and isinstance(found.get("access_token"), str) else None


def keep_login(url: str, login: dict[str, Any]) -> None:
    """Keep the login to a service, in place of an earlier one.

    Raises:
        ConfigError: The file cannot be read, or others can read it.
    """
    _write({**_read(), url.rstrip("/"): login})


def forget_login(url: str) -> None:
    """Forget the login to a service.

    Raises:
        ConfigError: The file cannot be read, or others can read it.
    """
    _write({name: login for name, login in _read().items() if name != url.rstrip("/")})
