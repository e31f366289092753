#!/usr/bin/env bash
# release-check.sh VERSION: check that the current commit can be released as VERSION, and print the commands that release it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-}

fail() {
	echo "release-check: $*" >&2
	exit 1
}

[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || fail "give a version: make release-check VERSION=v0.9.0"
[[ -z $(git status --porcelain) ]] || fail "uncommitted changes: commit them first"
git rev-parse --verify --quiet "refs/tags/$version" >/dev/null && fail "the tag $version exists: choose another version"
grep -qE "^## \[?${version#v}\]?( |$)" CHANGELOG.md || fail "CHANGELOG.md has no section ## ${version#v}: rename the section Unreleased"
make lint
make vulncheck
make api
make test
cat <<DONE
$version can be released. Push the tag, which publishes the module:

	git tag -a $version -m $version
	git push origin $version
	GOPROXY=proxy.golang.org go list -m github.com/thalo-go/es@$version

After the first release with a stable API, record it: make api-record, and commit tools/api.txt.
DONE
