#!/bin/sh
# The container's entry: hands secrets from files to libraries that only read them from the environment.
#
# For each name below, NAME_FILE names a file whose content becomes NAME for the program, and for it alone: neither
# `docker inspect` nor the compose file ever shows it.
set -eu

for name in PGPASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    eval "file=\${${name}_FILE:-}"
    [ -n "$file" ] || continue
    value=$(cat "$file")
    export "$name=$value"
    unset "${name}_FILE"
done

exec "$@"
