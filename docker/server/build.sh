#!/bin/sh
# Build the image of a server from Debian's packages: docker/server/build.sh mysql|mariadb NAME
#
# The packages are those that `cdc sandbox` unpacks without an engine (cdc/sandbox/flavors.py lists them); the image has
# only their tree and the entrypoint. It needs no base image, and no root beyond access to the engine.
set -eu

flavor=$1
name=$2
here=$(dirname "$(realpath "$0")")
source=$(realpath "$here/../..")
python=${PYTHON:-$source/.venv/bin/python}
cd "$source"

root=$("$python" -m cdc.sandbox unpack "$flavor")

STAGE=$(mktemp -d)
export STAGE
trap 'rm -rf "$STAGE"' EXIT
umask 022
cp "$here/entrypoint.sh" "$STAGE/entrypoint.sh"
chmod 755 "$STAGE/entrypoint.sh"
"$python" -m cdc.sandbox bootstrap "$flavor" >"$STAGE/bootstrap.sql"
# The server runs as an unnamed user, which needs to write only here.
mkdir -p "$STAGE/var/run/mysqld" "$STAGE/var/lib/mysql" "$STAGE/var/lib/mysql-files"
chmod 777 "$STAGE/var/run/mysqld" "$STAGE/var/lib/mysql" "$STAGE/var/lib/mysql-files"

"$source/docker/import.sh" "$root" "$name" \
    --change 'ENTRYPOINT ["/entrypoint.sh"]' \
    --change 'ENV PATH=/usr/sbin:/usr/bin' \
    --change 'EXPOSE 3306' \
    --change 'VOLUME /var/lib/mysql' \
    --change 'USER 999:999'
