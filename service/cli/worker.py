"""One of several processes of a service, started by `supervising` and by nobody else: ``python -m service.cli.worker``.

It inherits two sockets: the listening one, which all workers share, and a connection to the parent.
"""

from __future__ import annotations

import socket

import click
import structlog

from service.cli.output import with_exit_codes
from service.cli.serve import configure_logging, run_service
from service.settings import load_installation

__all__ = ["main"]


@click.command()
@click.argument("number", type=int)
@click.argument("listening", type=int)
@click.argument("parent", type=int)
@with_exit_codes
def main(number: int, listening: int, parent: int) -> None:
    """Serve as worker NUMBER on the inherited sockets LISTENING and PARENT."""
    configure_logging()
    structlog.contextvars.bind_contextvars(worker=number)
    with socket.socket(fileno=parent) as link:
        run_service(load_installation(), lambda: socket.socket(fileno=listening), worker=number, parent=link)


if __name__ == "__main__":
    main()
