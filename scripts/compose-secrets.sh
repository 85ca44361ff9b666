#!/bin/sh
# Make the secrets that docker-compose.yml reads, once: secrets/*, random, never shown and never committed.
#
# The folder is yours alone (0700). The files in it are readable (0444) because Compose mounts them as they are, for
# users inside the containers who do not exist on this machine.
set -eu

cd "$(dirname "$0")/.."
umask 077
mkdir -p secrets
for name in database-password s3-access-key s3-secret-key keys-passphrase; do
    file=secrets/$name
    [ -e "$file" ] && continue
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$file"
    chmod 0444 "$file"
done
echo "The secrets are in secrets/. Back up keys-passphrase apart from the keys: without it they cannot be read."
