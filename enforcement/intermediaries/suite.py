"""Runs the cases against an intermediary, one after the other, and says of each what was found."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import aiohttp

from enforcement.intermediaries.caller import Caller, Failed, Pairs
from enforcement.intermediaries.cases import Bench, Case, NotApplicable
from enforcement.intermediaries.message_cases import MESSAGE_CASES
from enforcement.intermediaries.stream_cases import STREAM_CASES
from enforcement.intermediaries.stub import StubServer
from ledger.errors import ConfigError

__all__ = ["CASES", "Finding", "Verdict", "chosen", "run_suite"]

CASES: Final[Sequence[Case]] = (*MESSAGE_CASES, *STREAM_CASES)
Verdict: TypeAlias = Literal["pass", "fail", "not applicable"]
_MARK_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a case.

    Attributes:
        case: The case.
        verdict: How it went.
        reason: Why it failed or does not apply; empty if it passed.
    """

    case: Case
    verdict: Verdict
    reason: str = ""


def chosen(names: Iterable[str]) -> list[Case]:
    """Return the cases of these names; all if there is none.

    Raises:
        ConfigError: There is no case of a name.
    """
    wanted = set(names)
    unknown = wanted - {one.name for one in CASES}
    if unknown:
        raise ConfigError(f"there is no case {', '.join(sorted(unknown))}")
    return [one for one in CASES if not wanted or one.name in wanted]


async def run_suite(
    url: str,
    stub: StubServer,
    *,
    headers: Pairs = (),
    denied_tool: str | None = None,
    oversize_bytes: int | None = None,
    seconds: float,
    cases: Sequence[Case] = CASES,
) -> list[Finding]:
    """Run cases, in order.

    Args:
        url: The intermediary's endpoint.
        stub: The server that it stands before; it listens already.
        headers: What each request carries besides: credentials.
        denied_tool: A tool that the intermediary denies.
        oversize_bytes: A length of body that it refuses.
        seconds: How long a case may take.
        cases: Which.
    """
    findings = []
    for one in cases:
        stub.go_on.clear()
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as http:
            bench = Bench(
                stub=stub,
                caller=Caller(http, url, headers),
                mark=secrets.token_hex(_MARK_BYTES),
                denied_tool=denied_tool,
                oversize_bytes=oversize_bytes,
            )
            findings.append(await _try(one, bench, seconds))
        stub.go_on.set()
    return findings


async def _try(one: Case, bench: Bench, seconds: float) -> Finding:
    try:
        async with asyncio.timeout(seconds):
            await one.run(bench)
    except NotApplicable as reason:
        return Finding(one, "not applicable", str(reason))
    except Failed as reason:
        return Finding(one, "fail", str(reason))
    except TimeoutError:
        return Finding(one, "fail", f"nothing came for {seconds:g} seconds")
    except (aiohttp.ClientError, StopAsyncIteration) as error:
        return Finding(one, "fail", f"the connection or stream broke: {type(error).__name__}")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        # Cases read answers as they ought to be; one that is of another shape fails.
        return Finding(one, "fail", f"an answer of another shape: {type(error).__name__}")
    return Finding(one, "pass")
