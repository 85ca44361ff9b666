"""Set up what one of the Makefile's commands needs: ``python -m scripts.setup demo | lint | test``.

Each kind can be set up again at any time and is quick when nothing changed. It runs on a fresh Debian or Ubuntu with
nothing but Python and make, so it uses the standard library alone.
"""

from __future__ import annotations

import argparse
import sys

from scripts import machine, versitygw
from scripts.console import CommandError, Steps, say
from scripts.environment import VENV_PYTHON, ensure_venv, install_lock, install_project


def _machine_step(steps: Steps, needs: tuple[machine.Need, ...]) -> None:
    steps.start("What the machine must have")
    machine.provide(needs)


def _python_steps(steps: Steps, lock: str) -> None:
    steps.start("Python environment .venv")
    ensure_venv()
    steps.start(f"Python packages, requirements/{lock}.txt")
    install_lock(lock)
    steps.start("Tallystick itself, from this folder")
    install_project()


def set_up_demo() -> None:
    """Set up what `make demo` and `make run` need."""
    steps = Steps(total=4)
    _machine_step(steps, machine.DEMO_NEEDS)
    _python_steps(steps, "demo")


def set_up_lint() -> None:
    """Set up what `make lint` and the interoperability run need: Python packages alone."""
    steps = Steps(total=4)
    _machine_step(steps, machine.VENV_NEEDS)
    _python_steps(steps, "dev")


def set_up_test() -> None:
    """Set up what `make test` needs: servers, a browser and second opinions besides the packages."""
    packaged = machine.browser_is_packaged()
    steps = Steps(total=6 if packaged else 7)
    _machine_step(steps, (*machine.TEST_NEEDS, machine.BROWSER) if packaged else machine.TEST_NEEDS)
    _python_steps(steps, "dev")
    steps.start("merkletools, a second opinion on roots for the tests (docs/adr says why without its dependency)")
    install_lock("second-opinion", with_dependencies=False)
    steps.start("versitygw, an S3 server with Object Lock")
    versitygw.provide()
    if not packaged:
        steps.start("Chromium, from Playwright")
        machine.provide_fetched_browser(str(VENV_PYTHON))


_KINDS = {"demo": set_up_demo, "lint": set_up_lint, "test": set_up_test}


def main() -> int:
    """Run the set-up named on the command line; the exit status is 1 if something could not be had."""
    parser = argparse.ArgumentParser(prog="scripts.setup", description="Set up what a Makefile command needs.")
    parser.add_argument("kind", choices=sorted(_KINDS))
    try:
        _KINDS[parser.parse_args().kind]()
    except CommandError as error:
        say(f"\nSetting up stopped: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
