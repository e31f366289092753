#!/usr/bin/env bash
# chaos-binary.sh REVISION FILE: build the test binary of the chaos package as of a revision.
set -euo pipefail
revision=$1 file=$2
cd "$(git rev-parse --show-toplevel)"
git rev-parse --verify --quiet "$revision^{commit}" >/dev/null || { echo "revision $revision not found: set BESIDE, or fetch the whole history" >&2; exit 1; }
mkdir -p "$(dirname "$file")"
file=$(realpath "$file")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
git archive "$revision" | tar -x -C "$tree"
cd "$tree"
package=./internal/test/chaos
[[ -d $package ]] || package=./internal/chaos # before the test support had a folder of its own
go test -c -o "$file" "$package"
