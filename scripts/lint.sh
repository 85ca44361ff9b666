#!/bin/sh
# The checks of `make lint`, all of them or those named: sh scripts/lint.sh style types
#
# pre-commit and CI come through here too, so that a check means the same everywhere. Every check runs, also after one
# has failed; the exit status is 1 if any did.
set -u

cd "$(dirname "$0")/.." || exit 1
bin=.venv/bin
[ $# -gt 0 ] || set -- layout style types imports spelling repository

run() {
    case $1 in
        layout) "$bin/ruff" format --check . ;;
        style) "$bin/ruff" check . ;;
        types) "$bin/mypy" && "$bin/mypy" --package scripts ;;
        imports) "$bin/lint-imports" ;;
        spelling) "$bin/codespell" ;;
        repository) "$bin/python" -m pytest -q -p no:cacheprovider tests/unit/repo ;;
        *)
            echo "no such check: $1" >&2
            return 1
            ;;
    esac
}

failed=
for check in "$@"; do
    echo "== $check"
    run "$check" || failed="$failed $check"
done
if [ -n "$failed" ]; then
    echo "lint failed:$failed" >&2
    exit 1
fi
echo "lint passed: $*"
