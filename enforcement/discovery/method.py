"""Which code asked the network: so that what is published of it can be told of one scan, and not of another's.

Recall and precision are measured over a laboratory (``tests/discovery``) and published in ``docs/discovery.md`` with
this digest; a scan that is recorded carries it too. A scanner that was changed has another one, and nothing is known of
it until somebody measures it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final

__all__ = ["METHOD_MODULES", "method_digest"]

METHOD_MODULES: Final = ("found", "handshake", "probing", "scan", "scope")
"""The modules that ask, in order; what compares and reads configurations is not measured by the laboratory."""
_LABEL: Final = b"tallystick/discovery-method/v1\n"


@cache
def method_digest() -> str:
    """Return SHA-256 over the sources of the modules that ask the network, hexadecimal.

    Raises:
        OSError: The sources are not there: an installation without them cannot say what it is.
    """
    digest = hashlib.sha256(_LABEL)
    for name in METHOD_MODULES:
        source = (resources.files(__package__) / f"{name}.py").read_bytes()
        digest.update(f"{name}\n{len(source)}\n".encode() + source)
    return digest.hexdigest()
