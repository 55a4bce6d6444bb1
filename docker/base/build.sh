#!/bin/sh
# Builds the base image from Debian packages alone, for machines that can pull no image.
# Usage: build.sh IMAGE RECIPE_HASH    (`cargo xtask services up` calls it)
set -eu
image=$1
recipe=$2

root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT INT TERM

debootstrap --variant=minbase bookworm "$root"
# What apt left behind is a third of the image and is fetched again by the next layer anyway.
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

tar -C "$root" --one-file-system -c . | docker import \
    --change "LABEL kmr-test.recipe=$recipe" \
    --change 'ENV DEBIAN_FRONTEND=noninteractive' \
    --change 'CMD ["/bin/sh"]' \
    - "$image"
