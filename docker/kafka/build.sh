#!/bin/sh
# Builds the Kafka image from the jars of Maven Central. Needs the base image and mvn.
# Usage: build.sh IMAGE RECIPE_HASH BASE_IMAGE    (`cargo xtask services up` calls it)
set -eu
image=$1
recipe=$2
base=$3
here=$(cd "$(dirname "$0")" && pwd)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT INT TERM

cp "$here"/Dockerfile "$here"/run "$here"/install-tools "$here"/*.properties "$here"/*.yaml "$context"/
mvn --batch-mode --quiet --file "$here/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$context/libs"

docker build --build-arg "BASE=$base" --label "kmr-test.recipe=$recipe" --tag "$image" "$context"
