#!/bin/sh
# Run $PYTHON (python3 unless set) with the arguments given, after making sure that it is there and new enough.
#
# It is a shell script because an old Python could not even read a check that is written in new Python.
set -eu

python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "Tallystick needs Python 3.11 or newer, and there is no '$python' on this machine." >&2
    echo "Install it (Debian, Ubuntu: apt-get install python3) or name another one: make demo PYTHON=/path/to/python3" >&2
    exit 1
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Tallystick needs Python 3.11 or newer; '$python' is $("$python" -V 2>&1)." >&2
    echo "Install a newer one beside it and name it: make demo PYTHON=/path/to/python3.11" >&2
    exit 1
fi

exec "$python" "$@"
