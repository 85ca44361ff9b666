#!/bin/sh
# Start the service for development: its own data folder and keys below .cache/run, on 127.0.0.1.
#
# Nothing here is for production: the keys have no passphrase and lie beside the data. `make clean` removes both.
set -eu

cd "$(dirname "$0")/.."
data=$PWD/.cache/run
mkdir -p "$data"
[ -d "$data/keys" ] || .venv/bin/tallystick keys init "$data/keys"

export TALLYSTICK_DATA_DIR="${TALLYSTICK_DATA_DIR:-$data}"
export TALLYSTICK_KEYS_DIR="${TALLYSTICK_KEYS_DIR:-$data/keys}"
export TALLYSTICK_DATABASE_URL="${TALLYSTICK_DATABASE_URL:-sqlite:///$data/ledger.db}"
export TALLYSTICK_ANCHOR="${TALLYSTICK_ANCHOR:-directory:$data/anchor}"
export TALLYSTICK_TENANT="${TALLYSTICK_TENANT:-development}"
export TALLYSTICK_LOG_ID="${TALLYSTICK_LOG_ID:-development}"
export TALLYSTICK_ORIGIN="${TALLYSTICK_ORIGIN:-tallystick.example/development}"
export TALLYSTICK_LISTEN="${TALLYSTICK_LISTEN:-127.0.0.1:8080}"

echo "Data, anchor and keys are in .cache/run; the service listens on $TALLYSTICK_LISTEN."
exec .venv/bin/tallystick serve
