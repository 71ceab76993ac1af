#!/bin/sh
# Build the image of MySQL from Debian's packages: docker/mysql/build.sh [NAME]
exec "$(dirname "$(realpath "$0")")/../server/build.sh" mysql "${1:-cdc-mysql:9.7}"
