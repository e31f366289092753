#!/usr/bin/env bash
# compare.sh OLD BENCH BENCHTIME RUNS: compare the benchmarks of package bench matching BENCH with those of revision OLD.
# OLD is built in a temporary worktree. The two run alternately, so that other load on the machine affects both.
set -euo pipefail
old=$1 bench=$2 benchtime=$3 runs=$4
cd "$(git rev-parse --show-toplevel)"
revision=$(git rev-parse --verify --quiet "$old^{commit}") || { echo "revision $old not found: set OLD" >&2; exit 1; }
out=$PWD/.cache/compare
mkdir -p "$out"
tree=$(mktemp -d)
trap 'git worktree remove --force "$tree"' EXIT
git worktree add --quiet --detach "$tree" "$revision"
(cd "$tree" && go test -c -o "$out/old.test" ./bench)
go test -c -o "$out/new.test" ./bench
: >"$out/old.txt"
: >"$out/new.txt"
for ((i = 0; i < runs; i++)); do
	order=(old new)
	((i % 2)) && order=(new old)
	for side in "${order[@]}"; do
		echo "run $((i + 1)) of $runs: $side" >&2
		(cd bench && ES_BENCH_SERVERS=1 "$out/$side.test" -test.run '^$' -test.bench "$bench" -test.benchtime "$benchtime") >>"$out/$side.txt"
	done
done
# Metrics of the baselines are left out: benchmarks only report ratios to them.
go tool -modfile=tools/go.mod benchstat -filter '.unit:(ns/op OR events/s OR p50-ms OR p99-ms OR allocs/event OR cpu-us/event OR server-cpu-us/event)' \
	"$old=$out/old.txt" "new=$out/new.txt"
