#!/bin/sh
# Start the service for development: its own data folder and keys below .cache/run, on 127.0.0.1. With arguments, run
# another tallystick command with the same settings: sh scripts/run.sh keys token --role admin --name me
#
# Nothing here is for production: the keys have no passphrase and lie beside the data. `make clean` removes both. Any
# TALLYSTICK_ variable that is set already is left as it is.
set -eu

cd "$(dirname "$0")/.."
data=$PWD/.cache/run
mkdir -p "$data"

export TALLYSTICK_DATA_DIR="${TALLYSTICK_DATA_DIR:-$data}"
export TALLYSTICK_KEYS_DIR="${TALLYSTICK_KEYS_DIR:-$data/keys}"
export TALLYSTICK_ENVIRONMENT="${TALLYSTICK_ENVIRONMENT:-development}"
export TALLYSTICK_TENANT="${TALLYSTICK_TENANT:-development}"
export TALLYSTICK_LOG_ID="${TALLYSTICK_LOG_ID:-development}"
export TALLYSTICK_ORIGIN="${TALLYSTICK_ORIGIN:-tallystick.example/development}"
export TALLYSTICK_LISTEN="${TALLYSTICK_LISTEN:-127.0.0.1:8787}"
export TALLYSTICK_EXTERNAL_URL="${TALLYSTICK_EXTERNAL_URL:-http://$TALLYSTICK_LISTEN}"
export TALLYSTICK_BUNDLE_REVIEW="${TALLYSTICK_BUNDLE_REVIEW:-solo}"
export TALLYSTICK_INSECURE_COOKIES="${TALLYSTICK_INSECURE_COOKIES:-true}"

[ -d "$TALLYSTICK_KEYS_DIR" ] || .venv/bin/tallystick keys init "$TALLYSTICK_KEYS_DIR"
if [ $# -eq 0 ]; then
    echo "Data, anchor and keys are in .cache/run. The service: $TALLYSTICK_EXTERNAL_URL"
    echo "A token for yourself: sh scripts/run.sh keys token --role admin --name me"
    set -- serve
fi
exec .venv/bin/tallystick "$@"
