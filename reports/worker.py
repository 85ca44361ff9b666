"""The process that renders one report: job on standard input, PDF on standard output, then the end.

Started by `reports.render` as ``python -m reports.worker ADDRESS_SPACE_BYTES``. It bounds its own memory before it
reads anything, and refuses every connection from then on: a report never needs the network, and what it prints comes
from agents. A failure is one line on standard error and exit status 1; the line names what failed, not what was
printed.
"""

from __future__ import annotations

import resource
import sys
import warnings
from typing import Final

from ledger.errors import EvidenceError
from reports.job import decode_job

__all__ = ["main"]

_FORBIDDEN_EVENTS: Final = frozenset({"socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"})


def _refuse_network(event: str, _arguments: tuple[object, ...]) -> None:
    if event in _FORBIDDEN_EVENTS:
        raise PermissionError("a report is rendered without the network")


def _limit(address_space_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the report
    sys.addaudithook(_refuse_network)


def _fail(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 1


def main(arguments: list[str]) -> int:
    """Render the job of standard input; return the exit status.

    Args:
        arguments: One: the address space in bytes.
    """
    _limit(int(arguments[0]))
    # The machine's fonts are hidden from us on purpose; WeasyPrint warns of that as soon as it is imported.
    warnings.filterwarnings("ignore", message="No fonts configured in FontConfig")
    try:
        # Here, after the limits: the libraries that it loads must obey them too.
        from reports.pdf import make_pdf

        pdf = make_pdf(decode_job(sys.stdin.buffer.read()))
    except EvidenceError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail(f"its address space of {arguments[0]} bytes is used up")
    except Exception as error:  # noqa: BLE001 - whatever WeasyPrint raises; its message may quote the document
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        return _fail(f"{kind} within an address space of {arguments[0]} bytes")
    sys.stdout.buffer.write(pdf)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
