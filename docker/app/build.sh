#!/bin/sh
# Build the app's image on Debian's packages, without pulling anything: docker/app/build.sh [NAME] [docker build's options]
#
# Makes the two base images of docker/Dockerfile, if they are missing: Python, and Python with a compiler.
set -eu

name=${1:-cdc:latest}
[ $# -eq 0 ] || shift
here=$(dirname "$(realpath "$0")")
source=$(realpath "$here/../..")
cd "$source"

suite=bookworm
runs="base-files dash coreutils python3 python3-venv ca-certificates"
compiles="$runs gcc libc6-dev libpython3-dev"

make_base() { # NAME PACKAGE...
    base=$1
    shift
    if ! docker image inspect "$base" >/dev/null 2>&1; then
        root=$("${PYTHON:-$source/.venv/bin/python}" -m cdc.sandbox unpack "${base%%:*}" "$suite" "$@")
        "$source/docker/import.sh" "$root" "$base" --change 'ENV PATH=/usr/sbin:/usr/bin'
    fi
}

# shellcheck disable=SC2086 # lists of words
make_base cdc-python:3.11 $runs
# shellcheck disable=SC2086
make_base cdc-python-gcc:3.11 $compiles

# BuildKit, if present, would look for the base images in a registry first.
DOCKER_BUILDKIT=0 docker build --file docker/Dockerfile --tag "$name" \
    --build-arg BASE=cdc-python:3.11 --build-arg BUILD=cdc-python-gcc:3.11 "$@" .
