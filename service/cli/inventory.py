"""``tallystick inventory`` and ``tallystick privileges``: what there is, whose it is, who uses it, and who could."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click
import yaml

from ledger.canonical import canonical_bytes
from ledger.errors import ConfigError
from service.cli.client import ServiceClient, service_options
from service.cli.discovered import dismiss, reopen, unregistered, where
from service.cli.options import utc
from service.cli.output import counted, echo_json, json_option, save_new, say, table, with_exit_codes

__all__ = ["inventory", "privileges"]

_A_PAGE: Final = 500
_DIGEST: Final = "sha256:"
_Found = Mapping[str, Any]


@click.group(short_help="Servers, tools and agents; owners and tags.")
def inventory() -> None:
    """What there is behind the gateways, whose it is, and who uses it, as the log says."""


def _all(client: ServiceClient, kind: str, **filters: object) -> dict[str, Any]:
    """Return every line of a list, page by page, with what the first page says of it."""
    found: dict[str, Any] = client.get("/v1/inventory", kind=kind, limit=_A_PAGE, **filters)
    cursor = found["next_cursor"]
    while cursor is not None:
        page = client.get("/v1/inventory", kind=kind, limit=_A_PAGE, cursor=cursor, **filters)
        found["items"] += page["items"]
        cursor = page["next_cursor"]
    found["next_cursor"] = None
    return found


def _given(**flags: bool) -> dict[str, object]:
    return {name: True for name, given in flags.items() if given}


def _foot(found: _Found) -> None:
    """Say what the figures are of."""
    told = found["counted"]
    rest = "" if told["complete"] else "; the log goes on, ask again"
    left = f"; {told['left_out']} under too many names to tell apart" if told["left_out"] else ""
    say(f"Counted from leaves 0 to {told['to_leaf']}: {counted(told['calls'], 'calls')} of tools{left}{rest}.")


def _last(use: _Found) -> str:
    return "never" if use["last_ms"] is None else utc(use["last_ms"])


for _command in (unregistered, where, dismiss, reopen):
    inventory.add_command(_command)


@inventory.command(short_help="List servers, the unowned first.")
@click.option("--unowned", is_flag=True, help="Only those for which nobody answers.")
@click.option("--unused", is_flag=True, help="Only those with tools that nobody ever called.")
@service_options
@json_option
@with_exit_codes
def servers(url: str, token: str | None, *, unowned: bool, unused: bool, as_json: bool) -> None:
    """List servers with owner, tags, and use; the unowned stand first."""
    found = _all(ServiceClient(url, token), "servers", **_given(unowned=unowned, unused=unused))
    if as_json:
        echo_json(found)
        return
    header = ("server", "owner", "state", "tags", "tools", "unused", "agents", "calls", "refused", "last use (UTC)")
    table(header, [_server_row(line) for line in found["items"]])
    totals = found["totals"]
    say(f"{counted(totals['servers'], 'servers')}, {totals['unowned']} unowned, {totals['unlisted']} on no list.")
    _foot(found)


def _server_row(line: _Found) -> tuple[object, ...]:
    owner = ", ".join(line["owners"]) or "UNOWNED"
    return (
        line["name"],
        f"{owner} (lists differ)" if line["differing"] else owner,
        line["state"],
        ", ".join(line["tags"]),
        line["tools"],
        line["unused_tools"],
        line["agents"],
        line["use"]["calls"],
        line["use"]["refused"],
        _last(line["use"]),
    )


@inventory.command(short_help="List tools, those of unowned servers first.")
@click.option("--server", help="Of this server alone.")
@click.option("--unowned", is_flag=True, help="Only those of servers for which nobody answers.")
@click.option("--unused", is_flag=True, help="Only those that nobody ever called.")
@click.option("--to-confirm", is_flag=True, help="Only those with a suggested tag that nobody spoke of.")
@click.option("--disputed", is_flag=True, help="Only those of which people, lists and hints do not agree.")
@service_options
@json_option
@with_exit_codes
def tools(
    server: str | None,
    url: str,
    token: str | None,
    *,
    unowned: bool,
    unused: bool,
    to_confirm: bool,
    disputed: bool,
    as_json: bool,
) -> None:
    """List tools with their tags in force, what is suggested, and use."""
    flags = _given(unowned=unowned, unused=unused, to_confirm=to_confirm, disputed=disputed)
    found = _all(ServiceClient(url, token), "tools", server=server, **flags)
    if as_json:
        echo_json(found)
        return
    header = ("server", "tool", "tags", "to settle", "agents", "calls", "refused", "last use (UTC)")
    table(header, [_tool_row(line) for line in found["items"]])
    say(f"{counted(len(found['items']), 'tools')} of {found['totals']['tools']}.")
    _foot(found)


def _tool_row(line: _Found) -> tuple[object, ...]:
    open_terms = [f"{term['tag']} {term['state']}" for term in line["terms"] if term["state"] not in _SETTLED]
    hints = [f"the server's {name} is gainsaid" for name in line["disagreements"]]
    return (
        line["server"],
        line["tool"],
        ", ".join(line["tags"]),
        "; ".join([*open_terms, *hints]),
        line["agent_count"],
        line["use"]["calls"],
        line["use"]["refused"],
        _last(line["use"]),
    )


_SETTLED: Final = frozenset({"in_force", "rejected"})


@inventory.command(short_help="List agents that called tools.")
@service_options
@json_option
@with_exit_codes
def agents(url: str, token: str | None, *, as_json: bool) -> None:
    """List agents with how much they called. What one could call: tallystick privileges AGENT."""
    found = _all(ServiceClient(url, token), "agents")
    if as_json:
        echo_json(found)
        return
    header = ("agent", "servers", "tools", "calls", "refused", "last use (UTC)")
    rows = [
        (one["agent"], one["servers"], one["tools"], one["use"]["calls"], one["use"]["refused"], _last(one["use"]))
        for one in found["items"]
    ]
    table(header, rows)
    _foot(found)


@inventory.command(short_help="Show tags that people confirmed, for a list of servers.")
@click.option("--yaml", "as_yaml", is_flag=True, help="As entries of servers.yaml.")
@service_options
@json_option
@with_exit_codes
def tags(url: str, token: str | None, *, as_yaml: bool, as_json: bool) -> None:
    """Show the tags of each tool as they would be if lists followed what people said.

    Nothing is put in force by that: the gateway's list of servers is, once somebody puts them into it.
    """
    client = ServiceClient(url, token)
    of_servers = {line["name"]: set(line["tags"]) for line in _all(client, "servers")["items"]}
    wanted = [(line, _wanted(line, of_servers[line["server"]])) for line in _all(client, "tools")["items"]]
    if as_json:
        items = [{"server": line["server"], "tool": line["tool"], "tags": own} for line, own in wanted if own]
        echo_json({"items": items})
        return
    if as_yaml:
        _echo_yaml(wanted)
        return
    changed = [(line, own) for line, own in wanted if set(own) != set(line["tags"]) - of_servers[line["server"]]]
    rows = [(line["server"], line["tool"], ", ".join(line["tags"]), ", ".join(own)) for line, own in changed]
    table(("server", "tool", "in force", "beside its server's, if people are followed"), rows)
    say(f"{counted(len(changed), 'tools')} to change; --yaml prints entries for servers.yaml.")


def _wanted(line: _Found, of_server: set[str]) -> list[str]:
    """Return the tags that a tool would have beside its server's if the list followed what people said."""
    kept = {term["tag"] for term in line["terms"] if term["state"] in ("in_force", "confirmed")}
    return sorted(kept - of_server)


def _echo_yaml(wanted: list[tuple[_Found, list[str]]]) -> None:
    by_server: dict[str, list[dict[str, Any]]] = {}
    unnamed = 0
    for line, own in wanted:
        if own and line["tool"].startswith(_DIGEST):
            unnamed += 1  # the log has no name that a list could have
        elif own:
            by_server.setdefault(line["server"], []).append({"name": line["tool"], "tags": own})
    entries = [{"name": server, "tools": found} for server, found in sorted(by_server.items())]
    click.echo(yaml.safe_dump({"servers": entries}, sort_keys=False, allow_unicode=False).rstrip())
    if unnamed:
        click.echo(f"# {counted(unnamed, 'tools')} left out: their names stand in the log by their SHA-256.")


@inventory.command(short_help="Confirm or reject tags of a tool.")
@click.argument("server")
@click.argument("tool")
@click.argument("tag", nargs=-1, required=True)
@click.option("--reject", is_flag=True, help="They are wrong.")
@click.option("--comment", help="Why; recorded, in the vault.")
@service_options
@json_option
@with_exit_codes
def confirm(
    server: str,
    tool: str,
    tag: tuple[str, ...],
    comment: str | None,
    url: str,
    token: str | None,
    *,
    reject: bool,
    as_json: bool,
) -> None:
    """Confirm that TOOL of SERVER has each TAG, or reject that. It takes a person."""
    said: dict[str, object] = {"tool": tool, "tags": list(tag), "verdict": "rejected" if reject else "confirmed"}
    if comment is not None:
        said["comment"] = comment
    done = ServiceClient(url, token).post(f"/v1/inventory/{_in_path(server)}/tags", said)
    if as_json:
        echo_json(done)
        return
    say(f"{', '.join(tag)} of {server}/{tool}: {done['verdict']}, leaf {done['leaf_index']}")


@inventory.command(short_help="Make a record of what the inventory says now.")
@click.option("--agent", help="Of this agent's privileges instead.")
@click.option("--comment", help="Why; recorded, in the vault.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Where the snapshot goes.")
@service_options
@json_option
@with_exit_codes
def pin(agent: str | None, comment: str | None, output: Path, url: str, token: str | None, *, as_json: bool) -> None:
    """Record the digest of a view, once its leaves were read from the log, and save the view itself."""
    wanted = {"view": "inventory" if agent is None else "privileges", "agent": agent, "comment": comment}
    given = {name: value for name, value in wanted.items() if value is not None}
    done = ServiceClient(url, token).post("/v1/inventory", given)
    # Canonical, so that whoever hashes the file finds the digest that the log has.
    save_new(output, canonical_bytes(_plain(done["snapshot"])), "--output")
    if as_json:
        echo_json({"digest": done["digest"], "leaf_index": done["leaf_index"], "output": str(output)})
        return
    say(f"{output} is pinned: SHA-256 {done['digest']}, leaf {done['leaf_index']}")


def _plain(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return a value of plain dictionaries: those of answers complain about members that are not there."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _in_path(name: str) -> str:
    if not name:
        raise ConfigError("a name is not empty")
    return quote(name, safe="")


@click.command(short_help="Show what an agent can reach, and what it used.")
@click.argument("agent")
@click.option("--unused", is_flag=True, help="Only what is granted and was not used.")
@service_options
@json_option
@with_exit_codes
def privileges(agent: str, url: str, token: str | None, *, unused: bool, as_json: bool) -> None:
    """Set what AGENT can reach by the policy in force against what it used: the worklist of least privilege."""
    found = ServiceClient(url, token).get(f"/v1/agents/{_in_path(agent)}/privileges")
    if as_json:
        echo_json(found)
        return
    days = [f"{days} d" for days in found["days"]]
    header = ("server", "tool", "reach", "by rule", *days, "last use (UTC)", "impact")
    lines = [line for line in found["lines"] if line["unused"] or not unused]
    table(header, [_privilege_row(line) for line in lines])
    totals = found["totals"]
    say(
        f"Of {counted(totals['tools'], 'tools')} {totals['reachable']} can be reached ({totals['approval']} with a "
        f"person's approval), {totals['unused']} of these unused in {found['days'][-1]} days."
    )
    if totals["unknown"]:
        say(f"Of {counted(totals['unknown'], 'tools')} nobody could say.")
    if totals["lost"]:
        say(f"{counted(totals['lost'], 'tools')} used in {found['days'][-1]} days, and refused now.")
    if totals["left_out"]:
        say(f"{counted(totals['left_out'], 'tools')} were not asked about: there are too many.")
    for grant in found["grants"]:
        if grant["unused"]:
            say(
                f"{grant['rule']}: grants {counted(grant['tools'], 'tools')}, {grant['unused']} unused; "
                f"without it {counted(grant['calls'], 'calls')} of {found['days'][-1]} days would have been refused."
            )
    bundle = "no policy is in force" if found["bundle"] is None else f"policy {found['bundle'][:12]}"
    rest = "" if found["complete"] else "; the log goes on, ask again"
    asked = counted(len(found["circumstances"]), "circumstances")
    say(f"Asked in {asked}; {bundle}; leaves 0 to {found['size']}{rest}.")


def _privilege_row(line: _Found) -> tuple[object, ...]:
    reach = line["reach"]
    if reach in ("allowed", "approval") and line["circumstances"] < line["asked"]:
        reach += f" ({line['circumstances']} of {line['asked']})"
    parts = "+".join(
        f"{part['tag']}{'?' if part['suggested'] else ''} {part['points']}" for part in line["impact"]["parts"]
    )
    return (
        line["server"],
        line["tool"],
        reach + (", UNUSED" if line["unused"] else ""),
        ", ".join(line["rules"]),
        *line["within"],
        _last(line["use"]),
        f"{line['impact']['points']}: {parts}",
    )
