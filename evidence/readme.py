"""``README.txt`` of a pack: how to verify it, what to expect, and what it does not prove.

Pure. The text follows from the scope, so that a verifier writes it again and compares.
"""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from typing import Final

from evidence.scope import Scope

__all__ = ["readme_text"]

_WIDTH: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIMULATED: Final = """\
SIMULATED. Demonstration keys or a made-up clock were used: this pack is evidence of nothing real.

"""
_TEXT: Final = """\
{simulated}EVIDENCE PACK {pack_id}

Log       {origin}
Period    {start} to {end} (UTC, end excluded)
Records   leaves {first} to {last}
Tree      {size} leaves, root {root}

VERIFY

1. Get the trust policy of this log from its operator by another way than this pack, and compare its
   fingerprints by telephone. Trust never comes from the thing that is verified; the trust.policy in
   here is for information.

2. tallystick verify PACK.zip --trust TRUST_POLICY

   The last line must be "PROVEN", and the exit status 0. Other exit statuses: 1 a proof or digest
   fails, 2 malformed, 3 valid but the trust is not met (without --trust: self-asserted), 4 something
   could not be checked. If your copy of the program ships another control catalogue under the name of
   one in frameworks/, it says 3: read the one here, then accept it with --accept-mapping SHA256.

3. If you kept a checkpoint of this log from an earlier visit, or from a witness or anchor:
   tallystick verify PACK.zip --trust TRUST_POLICY --known CHECKPOINT

   This shows that the log which you saw then and the log of this pack are one log.

All of this works offline. The formats are described in docs/evidence.md of the program's sources:
RFC 6962 trees, C2SP checkpoints and tlog-proof files, DSSE, and canonical JSON (RFC 8785).

WHAT IS PROVED

{proved}

WHAT IS NOT PROVED

{not_proved}

START WITH

pack.pdf              the report
controls/             one sheet for each control: tests, verdict, deviations
exceptions.json       every deviation with its leaf
gaps.json             what the evidence does not cover
population/           every entry of the range, and the counts
proofs/               inclusion proofs that other C2SP tools read, too
"""


def _time(milliseconds: int) -> str:
    return (_EPOCH + timedelta(milliseconds=milliseconds)).strftime("%Y-%m-%d %H:%M:%S")


def _bullets(sentences: tuple[str, ...]) -> str:
    wrapped = (textwrap.fill(one, _WIDTH, initial_indent="- ", subsequent_indent="  ") for one in sentences)
    return "\n".join(wrapped)


def readme_text(scope: Scope) -> bytes:
    """Return the file's bytes."""
    return _TEXT.format(
        simulated=_SIMULATED if scope.simulated else "",
        pack_id=scope.pack_id,
        origin=scope.claims.origin,
        start=_time(scope.claims.from_ms),
        end=_time(scope.claims.to_ms),
        first=scope.first_leaf,
        last=scope.tree_size - 1,
        size=scope.tree_size,
        root=scope.root,
        proved=_bullets(scope.proved),
        not_proved=_bullets(scope.not_proved),
    ).encode()
