#!/bin/sh
# Builds the ClickHouse image from the engine that the chdb project publishes as an npm package: the
# server's own code as one shared library. Needs the base image, npm and a C compiler. Usage:
# build.sh IMAGE RECIPE_HASH BASE_IMAGE    (`cargo xtask services up` calls it)
set -eu
image=$1
recipe=$2
base=$3
here=$(cd "$(dirname "$0")" && pwd)
package=@chdb/lib-linux-x64-gnu@26.7.3-stable.1

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT INT TERM

cp "$here"/Dockerfile "$here"/entrypoint "$context"/
cd "$context"
npm pack --silent --no-update-notifier --fund=false --audit=false "$package" >tarball
mkdir package-files
tar -xzf "$(cat tarball)" -C package-files
mv "$(find package-files -name libchdb.so | head -n 1)" libchdb.so
rm -rf package-files "$(cat tarball)" tarball

cc -O2 -Wall -Wextra -Werror -o clickhouse-local "$here/launcher.c" -L. -l:libchdb.so \
    -Wl,-rpath,/usr/lib/clickhouse -Wl,--allow-shlib-undefined
docker build --build-arg "BASE=$base" --label "kmr-test.recipe=$recipe" --tag "$image" "$context"
