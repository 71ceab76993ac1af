#!/usr/bin/env bash
# Make an image of an unpacked tree of Debian's packages: docker/import.sh ROOT NAME [docker import's options]
#
# STAGE, if set, is a folder with more files for the image. Files that only installed packages need are left out, and the
# bundle of certificates is made, which an installation would have made and programs need.
set -euo pipefail

root=$1
name=$2
shift 2
extra=$(mktemp -d)
trap 'rm -rf "$extra" "$extra.list"' EXIT
umask 022
[ -z "${STAGE:-}" ] || cp -a "$STAGE/." "$extra/"
if [ -d "$root/usr/share/ca-certificates" ] && [ ! -f "$root/etc/ssl/certs/ca-certificates.crt" ]; then
    mkdir -p "$extra/etc/ssl/certs"
    find "$root/usr/share/ca-certificates" -name '*.crt' -exec cat {} + >"$extra/etc/ssl/certs/ca-certificates.crt"
fi

# An engine refuses a path that comes twice: only those of the extra folders are named that the tree lacks.
cd "$extra"
find . -mindepth 1 | while read -r path; do
    [ -d "$path" ] && [ ! -L "$path" ] && [ -d "$root/$path" ] || echo "$path"
done >"$extra.list"
tar --create --owner=0 --group=0 --numeric-owner --no-recursion \
    --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale \
    --exclude=./usr/share/perl --exclude='./usr/lib/*/perl*' \
    --recursion -C "$root" . --no-recursion -C "$extra" --files-from="$extra.list" |
    docker import "$@" - "$name"
