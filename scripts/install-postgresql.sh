#!/bin/sh
# As root: install Debian's PostgreSQL programs without the database cluster that the package would create and start.
#
# The package asks createcluster.conf whether to make one. We say no for the length of this installation and then put
# the file back as it was, so that the machine's own settings are unchanged.
set -eu

# The folder is an argument so that a test can watch over another one.
config=${1:-/etc/postgresql-common}/createcluster.conf
template=/usr/share/postgresql-common/createcluster.conf
before=$(mktemp)

restore() {
    if [ -s "$before" ]; then
        cat "$before" >"$config"
    elif [ -f "$template" ]; then
        cat "$template" >"$config"
    else
        rm -f "$config"
    fi
    # The note that the package's configuration step leaves about the difference that was there meanwhile.
    [ "$noted" = yes ] || rm -f "$config.ucf-dist"
    rm -f "$before"
}

noted=no
[ ! -e "$config.ucf-dist" ] || noted=yes
mkdir -p "$(dirname "$config")"
if [ -f "$config" ]; then
    cat "$config" >"$before"
fi
trap restore EXIT
echo "create_main_cluster = false" >>"$config"

# UCF: the package's own configuration step must keep our file rather than ask about it.
DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 \
    apt-get install --yes --no-install-recommends postgresql
