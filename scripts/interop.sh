#!/bin/sh
# Write a log with Tallystick and verify it with public Go tools (tests/interop), and have the transparency-dev witness
# cosign one; have a stock OPA decide by a bundle of ours and report to us. Go itself must be on the machine. Where npm is,
# run the official MCP conformance suite through each transport of the enforcement point.
set -eu

cd "$(dirname "$0")/.."
if ! command -v go >/dev/null 2>&1; then
    echo "make interop needs Go 1.26 or newer, and there is no 'go' on this machine." >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# local: a Go that is too old is an error to read, not a toolchain to fetch. readonly: only what go.sum pins.
export GOTOOLCHAIN=local
mkdir -p tests/interop/bin

.venv/bin/python -m tests.interop.make_log "$folder/out"
(cd tests/interop && GOFLAGS=-mod=readonly go build -o bin/interop .)
tests/interop/bin/interop -folder "$folder/out"

# The witness as it is published asks for a version of one module that is not. It is built from a vendored copy, to which
# the one function is added that the version before lacks; what it is called for, sign-subtree, we do not use.
cp -R tests/interop/witness "$folder/witness"
(
    cd "$folder/witness"
    GOFLAGS=-mod=readonly go mod vendor
    cp subtree.go.txt vendor/github.com/transparency-dev/merkle/proof/subtree.go
    GOFLAGS=-mod=vendor go build -o witness .
)
.venv/bin/python -m tests.interop.cosign "$folder/witness/witness" "$folder/cosigned"

# The OPA that its authors publish, nothing added. The first time, Go compiles it in a minute or two.
(cd tests/interop/opa_program && GOFLAGS=-mod=readonly go build -o ../bin/opa github.com/open-policy-agent/opa)
.venv/bin/python -m tests.interop.opa tests/interop/bin/opa "$folder/opa"
.venv/bin/python -m tests.interop.rego_functions tests/interop/bin/opa
PATH="$PWD/tests/interop/bin:$PATH" .venv/bin/python -m pytest -q -n 0 -p no:cacheprovider tests/integration/test_opa_server.py -k stock

# The suite needs a newer Node than many machines have: npm brings one along, and nothing that npm brings runs on its own.
if ! command -v npm >/dev/null 2>&1; then
    echo "left out: the MCP conformance suite, for there is no 'npm' on this machine"
    exit 0
fi
mkdir "$folder/npm"
cp tests/interop/mcp_conformance/package.json tests/interop/mcp_conformance/package-lock.json "$folder/npm"
(cd "$folder/npm" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
.venv/bin/python -m tests.interop.mcp_conformance "$folder/npm/node_modules/.bin/node" "$folder/npm/node_modules" "$folder/mcp"
