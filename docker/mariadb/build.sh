#!/bin/sh
# Build the image of MariaDB from Debian's packages: docker/mariadb/build.sh [NAME]
exec "$(dirname "$(realpath "$0")")/../server/build.sh" mariadb "${1:-cdc-mariadb:10.11}"
