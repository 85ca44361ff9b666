#!/bin/sh
# Pin every requirement with its hashes, for every platform and Python from 3.11 on: requirements/*.txt.
#
# Pins that are there stay as they are unless UPGRADE is set; then newer versions are taken that are at least a week old.
# demo.txt comes first and constrains the others, so that all of them agree on versions.
set -eu

cd "$(dirname "$0")/.."
tool=.cache/lock-venv
if [ ! -x "$tool/bin/uv" ] || ! cmp -s requirements/lock-tool.txt "$tool/installed.txt"; then
    rm -rf "$tool"
    mkdir -p .cache
    sh scripts/python.sh -m venv "$tool"
    "$tool/bin/python" -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/lock-tool.txt
    cp requirements/lock-tool.txt "$tool/installed.txt"
fi
uv=$PWD/$tool/bin/uv

compile() {
    output=$1
    shift
    echo "requirements/$output"
    # shellcheck disable=SC2086  # the upgrade options are words
    UV_CUSTOM_COMPILE_COMMAND="make lock" "$uv" pip compile --quiet --no-config --system-certs --generate-hashes --no-emit-index-url \
        --universal --python-version 3.11 ${upgrade-} --output-file "$output" "$@"
}

if [ -n "${UPGRADE:-}" ]; then
    upgrade="--upgrade --exclude-newer 7days"
fi
cd requirements
compile demo.txt ../pyproject.toml build.in --extra demo
compile runtime.txt ../pyproject.toml build.in -c demo.txt
compile dev.txt ../pyproject.toml build.in --extra demo --extra test --extra lint -c demo.txt
compile second-opinion.txt second-opinion.in --no-deps
compile lock-tool.txt lock-tool.in
