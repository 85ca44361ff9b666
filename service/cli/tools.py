"""``tallystick tools``: which definitions of tools stand, what changed, and a person's word about it."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar
from urllib.parse import quote

import click

from ledger.errors import ConfigError, ConflictError, NotFoundError
from service.cli.client import ServiceClient, service_options
from service.cli.options import utc
from service.cli.output import counted, echo_json, json_option, say, table, with_exit_codes
from service.cli.tool_manifests import manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from enforcement.core import Core
    from enforcement.pin_rules import Pin

__all__ = ["tools"]

_T = TypeVar("_T")
_A_PAGE: Final = 500
_MIN_DIGEST_CHARS: Final = 12
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_CONFIG = click.option(
    "--config", type=_FILE, help="A gateway's configuration: what that gateway knows by itself, without the service."
)
_Verdict = Literal["approved", "rejected"]


class _Desk(Protocol):
    """Where tools are looked at, and something is said of them."""

    def all(self, *, waiting: bool) -> list[Mapping[str, Any]]: ...

    def one(self, server: str, tool: str) -> Mapping[str, Any]: ...

    def difference(self, server: str, tool: str) -> Mapping[str, Any]: ...

    def say(self, server: str, tool: str, digest: str, verdict: _Verdict, comment: str, actor: str | None) -> None: ...


class _Service:
    """A service's word, for all its gateways."""

    def __init__(self, url: str, token: str | None) -> None:
        self._client = ServiceClient(url, token)

    def all(self, *, waiting: bool) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        offset: int | None = 0
        while offset is not None:
            page = self._client.get("/v1/tools", waiting=waiting, offset=offset, limit=_A_PAGE)
            found += page["items"]
            offset = page["next_offset"]
        return found

    def one(self, server: str, tool: str) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._client.get(_path(server, tool))
        return answer

    def difference(self, server: str, tool: str) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._client.get(f"{_path(server, tool)}/difference")
        return answer

    def say(self, server: str, tool: str, digest: str, verdict: _Verdict, comment: str, actor: str | None) -> None:
        if actor is not None:
            raise ConfigError("--by goes with --config: a service knows who asks")
        said = {"verdict": verdict, "digest": digest, "comment": comment}
        self._client.post(f"{_path(server, tool)}/verdict", said)


class _Gateway:
    """What one gateway knows by itself."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def _pins(self) -> dict[str, dict[str, Pin]]:
        from enforcement.pin_desk import pins_of

        return self._with_core(pins_of)

    def all(self, *, waiting: bool) -> list[Mapping[str, Any]]:
        found = [_of_pin(server, pin) for server, pins in self._pins().items() for pin in pins.values()]
        return sorted((one for one in found if one["waits"] or not waiting), key=lambda one: not one["waits"])

    def one(self, server: str, tool: str) -> Mapping[str, Any]:
        return _of_pin(server, self._pin(server, tool))

    def difference(self, server: str, tool: str) -> Mapping[str, Any]:
        from enforcement.tool_changes import difference

        pin = self._pin(server, tool)
        before = pin.definition if pin.digest != pin.seen else ""
        lines = difference(before, pin.seen_definition)
        return {
            **_of_pin(server, pin),
            "before": before or None,
            "after": pin.seen_definition or None,
            "difference": lines,
        }

    def _pin(self, server: str, tool: str) -> Pin:
        pin = self._pins().get(server, {}).get(tool)
        if pin is None:
            raise NotFoundError(f"this gateway knows no tool {tool} of a server {server}")
        return pin

    def say(self, server: str, tool: str, digest: str, verdict: _Verdict, comment: str, actor: str | None) -> None:
        from enforcement.pin_desk import say_of_tool

        who = actor or _logged_in()
        self._with_core(
            lambda core: say_of_tool(
                core,
                server,
                tool,
                digest=digest,
                verdict=verdict,
                actor=who,
                comment=comment,
                pseudonyms=core.pseudonyms,
            )
        )

    def _with_core(self, function: Callable[[Core], _T]) -> _T:
        from enforcement.config_files import load_config
        from service.settings import passphrase
        from service.wiring.gateways import make_gateway, make_gateway_evaluator

        settings = load_config(self._config)
        evaluator = make_gateway_evaluator(settings)
        try:
            return function(make_gateway(settings, passphrase(), evaluator=evaluator).core)
        finally:
            evaluator.close()


def _logged_in() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a container's user may have no name
        raise ConfigError("--by says who says so") from error


def _path(server: str, tool: str) -> str:
    return f"/v1/tools/{quote(server, safe='')}/{quote(tool, safe='/')}"


def _of_pin(server: str, pin: Pin) -> dict[str, Any]:
    waits = pin.state == "quarantined" and "rejected" not in pin.reasons
    state = {"pinned": pin.trust, "quarantined": "quarantined" if waits else "rejected"}[pin.state]
    return {
        "server": server,
        "tool": pin.tool,
        "state": state,
        "waits": waits,
        "listed": pin.listed,
        "digest": pin.seen or None,
        "standing": pin.digest or None,
        "reasons": list(pin.reasons),
        "changes": list(pin.changes),
        "other": (f"{server}{pin.other}" if pin.other.startswith("/") else pin.other) or None,
    }


def _desk(config: Path | None, url: str, token: str | None) -> _Desk:
    return _Service(url, token) if config is None else _Gateway(config)


@click.group(short_help="Definitions of tools: what changed, what stands.")
def tools() -> None:
    """Which definitions of tools stand, what changed, and what people say of it; see docs/safeguards.md."""


tools.add_command(manifest)


@tools.command("list", short_help="List tools; what waits for somebody first.")
@click.option("--waiting", is_flag=True, help="Only those that wait for somebody's word.")
@_CONFIG
@service_options
@json_option
@with_exit_codes
def list_tools(config: Path | None, url: str, token: str | None, *, waiting: bool, as_json: bool) -> None:
    """List the tools that gateways with pins have seen, quarantined ones first."""
    found = _desk(config, url, token).all(waiting=waiting)
    if as_json:
        echo_json({"items": found})
        return
    rows = [
        (
            one["server"],
            one["tool"],
            one["state"].replace("_", " ") + ("" if one["listed"] else ", gone"),
            ", ".join(one["reasons"]),
            ", ".join(one["changes"]),
            (one["digest"] or "")[:_MIN_DIGEST_CHARS],
        )
        for one in found
    ]
    table(("server", "tool", "state", "because", "brings in", "digest"), rows)


@tools.command(short_help="Show a tool, and what became of it.")
@click.argument("server")
@click.argument("tool")
@_CONFIG
@service_options
@json_option
@with_exit_codes
def show(server: str, tool: str, config: Path | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Show what is known of TOOL of SERVER."""
    found = _desk(config, url, token).one(server, tool)
    if as_json:
        echo_json(found)
        return
    _headline(found)
    steps = found.get("steps", [])
    if steps:
        say()
        table(
            ("time (UTC)", "leaf", "what", "by", "because", "digest"),
            [
                (
                    utc(step["time_ms"]),
                    step["leaf_index"],
                    step["action"].replace("_", " "),
                    step["actor"] or step["enforcer_id"],
                    ", ".join(step["reasons"]),
                    (step["digest"] or "")[:_MIN_DIGEST_CHARS],
                )
                for step in steps
            ],
        )


@tools.command("diff", short_help="Show what changed in a tool's definition.")
@click.argument("server")
@click.argument("tool")
@_CONFIG
@service_options
@json_option
@with_exit_codes
def show_difference(server: str, tool: str, config: Path | None, url: str, token: str | None, *, as_json: bool) -> None:
    """Show the difference between the definition of TOOL of SERVER that stood and the one that was seen last.

    Characters that nobody would see are written out. With a service it takes a person's token, and is recorded.
    """
    found = _desk(config, url, token).difference(server, tool)
    if as_json:
        echo_json(found)
        return
    _headline(found)
    say()
    say("\n".join(found["difference"]) if found["difference"] else "Nothing differs, or nobody has the definitions.")


def _headline(found: Mapping[str, Any]) -> None:
    from enforcement.tool_changes import CHANGES

    say(f"{found['tool']} of {found['server']}: {found['state'].replace('_', ' ')}")
    if found["reasons"]:
        other = f" ({found['other']})" if found["other"] else ""
        say(f"quarantined because: {', '.join(found['reasons'])}{other}")
    for change in found["changes"]:
        say(f"it {CHANGES.get(change, change)} ({change})")
    say(f"definition seen last: {found['digest'] or 'one that has no digest'}")
    say(f"definition that stood: {found['standing'] or 'none'}")


def _say(
    verdict: _Verdict,
    desk: _Desk,
    server: str,
    tool: str,
    *,
    digest: str,
    comment: str,
    actor: str | None,
    as_json: bool,
) -> None:
    found = desk.one(server, tool)
    seen = found["digest"] or ""
    if len(digest) < _MIN_DIGEST_CHARS or not all(character in "0123456789abcdef" for character in digest):
        raise ConfigError(f"--digest takes at least the first {counted(_MIN_DIGEST_CHARS, 'digits')} of the digest")
    if not seen.startswith(digest):
        raise ConflictError("another definition was seen by now: look at `tallystick tools diff` again")
    desk.say(server, tool, seen, verdict, comment, actor)
    if as_json:
        echo_json({"server": server, "tool": tool, "digest": seen, "verdict": verdict})
        return
    say(f"{tool} of {server} is {verdict} with the definition {seen}")


_DIGEST = click.option("--digest", required=True, help="Of the definition that was looked at: `tallystick tools diff`.")
_COMMENT = click.option("--comment", required=True, help="Why; recorded, in the vault.")
_BY = click.option("--by", "actor", help="With --config: who says so; without it, who is logged in here.")


@tools.command(short_help="Let a tool be listed and called with this definition.")
@click.argument("server")
@click.argument("tool")
@_DIGEST
@_COMMENT
@_BY
@_CONFIG
@service_options
@json_option
@with_exit_codes
def approve(
    server: str,
    tool: str,
    digest: str,
    comment: str,
    actor: str | None,
    config: Path | None,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Approve the definition of TOOL of SERVER that was seen last, at every gateway of the service.

    With --config, at that gateway alone; a quarantine that its service knows of ends at the service.
    """
    desk = _desk(config, url, token)
    _say("approved", desk, server, tool, digest=digest, comment=comment, actor=actor, as_json=as_json)


@tools.command(short_help="Let a tool be neither listed nor called with this definition.")
@click.argument("server")
@click.argument("tool")
@_DIGEST
@_COMMENT
@_BY
@_CONFIG
@service_options
@json_option
@with_exit_codes
def reject(
    server: str,
    tool: str,
    digest: str,
    comment: str,
    actor: str | None,
    config: Path | None,
    url: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    """Reject the definition of TOOL of SERVER that was seen last, at every gateway; with --config, at that one."""
    desk = _desk(config, url, token)
    _say("rejected", desk, server, tool, digest=digest, comment=comment, actor=actor, as_json=as_json)
