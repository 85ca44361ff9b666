"""``tallystick tls``: certificates for development, and what a certificate says."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ledger.clock import SystemClock
from ledger.errors import ConfigError
from ledger.files import appearing_directory, create_durably
from service.cli.output import echo_json, json_option, program, say, shown_path, table, with_exit_codes

if TYPE_CHECKING:
    from cryptography import x509

    from enforcement.tls_development import Algorithm, Wish
    from enforcement.tls_files import Credential

__all__ = ["tls"]

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_MAX_DAYS: Final = 90
_MAX_FILE_BYTES: Final = 1 << 20
_NAME: Final = r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?"
_PART: Final = r"[A-Za-z0-9_.-]{1,64}"
_MS_PER_SECOND: Final = 1000


@click.group(short_help="Certificates for development; what a certificate says.")
def tls() -> None:
    """Certificates of TLS. In production they come from an authority of your own; see docs/tls.md."""


@tls.command("init", short_help="Make a development authority, and certificates for every part.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", default="tallystick", show_default=True, help="Trust domain: spiffe://NAME/….")
@click.option("--gateway", "gateways", multiple=True, default=("gateway-1",), show_default=True, help="Enforcer's id.")
@click.option("--agent", "agents", multiple=True, default=("agent",), show_default=True, help="A client's name.")
@click.option("--host", "hosts", multiple=True, help="Host or address of the servers, besides this machine's own.")
@click.option("--days", type=click.IntRange(1, _MAX_DAYS), default=30, show_default=True, help="How long they hold.")
@click.option(
    "--algorithm",
    type=click.Choice(["p-256", "ml-dsa-65"]),
    default="p-256",
    show_default=True,
    help="Of the keys; ml-dsa-65 is post-quantum, and few clients know it.",
)
@json_option
@with_exit_codes
def init(
    directory: Path,
    name: str,
    gateways: tuple[str, ...],
    agents: tuple[str, ...],
    hosts: tuple[str, ...],
    days: int,
    algorithm: Algorithm,
    *,
    as_json: bool,
) -> None:
    """Make an authority for development in DIRECTORY, and certificates for service, MCP server, gateways and agents.

    DIRECTORY must not be there. Its keys lie beside each other, readable by you alone: nothing for production.
    """
    from enforcement.tls_development import issue, make_authority

    _check(name, gateways, agents)
    now_ms = SystemClock().now_ms()
    authority = make_authority(f"{name} authority", algorithm=algorithm, now_ms=now_ms, days=days)
    made = {"ca": authority}
    for file_name, wish in _wishes(name, gateways, agents, hosts, days).items():
        made[file_name] = issue(authority, wish, algorithm=algorithm, now_ms=now_ms)
    with appearing_directory(directory) as building:
        for file_name, credential in made.items():
            _write(building / file_name, credential)
    facts = [_facts(directory / f"{file_name}.crt", one.chain[0]) for file_name, one in made.items()]
    if as_json:
        echo_json({"directory": str(directory), "certificates": facts})
        return
    say(f"DEVELOPMENT certificates are in {shown_path(directory)}, valid for {days} days:")
    _show(facts)
    shown = shown_path(directory)
    say(f"The service:  {program()} serve --tls-certificate {shown / 'service.crt'} \\")
    say(f"                  --tls-key file:{shown / 'service.key'} --tls-client-ca {shown / 'ca.crt'}")
    say("Its clients:  TALLYSTICK_CA, TALLYSTICK_CLIENT_CERTIFICATE, TALLYSTICK_CLIENT_KEY; see docs/tls.md.")


@tls.command(short_help="Show what certificates say.")
@click.argument("file", type=_FILE)
@json_option
@with_exit_codes
def show(file: Path, *, as_json: bool) -> None:
    """Show names, issuer, algorithm and end of each certificate in FILE. Keys in it are passed over."""
    from cryptography import x509

    with file.open("rb") as opened:
        data = opened.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{file.name} has more than {_MAX_FILE_BYTES} bytes")
    try:
        facts = [_facts(file, certificate) for certificate in x509.load_pem_x509_certificates(data)]
    except (ValueError, x509.DuplicateExtension) as error:
        raise ConfigError(f"{file.name} holds no certificate in PEM, or one that cannot be read") from error
    if as_json:
        echo_json({"certificates": facts})
    else:
        _show(facts)


def _check(name: str, gateways: tuple[str, ...], agents: tuple[str, ...]) -> None:
    if re.fullmatch(_NAME, name) is None:
        raise ConfigError("--name is a trust domain: lower-case letters, digits, dots and hyphens")
    parts = [*gateways, *agents]
    if any(re.fullmatch(_PART, part) is None or part in (".", "..") for part in parts):
        raise ConfigError("--gateway and --agent take letters, digits and _ . -, at most 64")
    if len({"ca", "service", "server", *parts}) < len(parts) + 3:
        raise ConfigError("a name stands twice, or is ca, service or server, which there are besides")


def _wishes(
    name: str, gateways: tuple[str, ...], agents: tuple[str, ...], hosts: tuple[str, ...], days: int
) -> dict[str, Wish]:
    from enforcement.tls_development import Wish

    here = tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", *hosts)))
    domain = f"spiffe://{name}"
    wishes = {
        part: Wish(name=part, hosts=here, uris=(f"{domain}/{part}",), server=True, days=days)
        for part in ("service", "server")
    }
    for gateway in gateways:
        uris = (f"{domain}/gateway/{gateway}",)
        wishes[gateway] = Wish(name=gateway, hosts=here, uris=uris, server=True, client=True, days=days)
    for agent in agents:
        wishes[agent] = Wish(name=agent, uris=(f"{domain}/agent/{agent}",), client=True, days=days)
    return wishes


def _write(place: Path, credential: Credential) -> None:
    create_durably(place.with_name(f"{place.name}.crt"), credential.chain_pem())
    create_durably(place.with_name(f"{place.name}.key"), credential.key_pem(), mode=0o600)


def _facts(file: Path, certificate: x509.Certificate) -> dict[str, object]:
    from cryptography.hazmat.primitives import hashes

    from enforcement.tls_files import expires_ms
    from enforcement.tls_peer import names_of

    return {
        "file": str(file),
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "names": list(names_of(certificate)),
        "signature": certificate.signature_algorithm_oid._name,  # noqa: SLF001  # its only readable name
        "expires_ms": expires_ms(certificate),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def _show(facts: list[dict[str, object]]) -> None:
    rows = []
    for one in facts:
        expires_ms, names = one["expires_ms"], one["names"]
        assert isinstance(expires_ms, int)
        assert isinstance(names, list)
        until = datetime.fromtimestamp(expires_ms / _MS_PER_SECOND, UTC).strftime("%Y-%m-%d %H:%M")
        rows.append((Path(str(one["file"])).name, one["subject"], ", ".join(names), one["signature"], until))
    table(("file", "subject", "names", "signature", "until (UTC)"), rows)
