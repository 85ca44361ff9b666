#!/bin/sh
# Write a log with Tallystick and verify it with public Go tools (tests/interop); Go itself must be on the machine.
set -eu

cd "$(dirname "$0")/.."
if ! command -v go >/dev/null 2>&1; then
    echo "make interop needs Go 1.26 or newer, and there is no 'go' on this machine." >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m tests.interop.make_log "$folder/out"
mkdir -p tests/interop/bin
# local: a Go that is too old is an error to read, not a toolchain to fetch. readonly: only what go.sum pins.
(cd tests/interop && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -o bin/interop .)
tests/interop/bin/interop -folder "$folder/out"
