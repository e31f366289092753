# CI calls the same targets: see .ci/run.

# Settings, to be given with a target: make fuzz MINUTES=10
MINUTES   = 1
TIMES     = 5
BENCH     = .
BENCHTIME = 1s
OLD       = main
RUNS      = 6
FIGURES   =
SEED      =
CHAOS     =
LOANS     = ../shared/data/bpic2012.xes.gz

# Where tests keep their files: in memory if there is room, for they make hundreds of databases, which takes a disk ten times as long. To use the disk: make test FAST=
FAST = $(shell [ -w /dev/shm ] && ! grep -q ' /dev/shm .*noexec' /proc/mounts && [ $$(df -Pk /dev/shm | awk 'END { print $$4 }') -gt 4000000 ] \
	&& echo TMPDIR=/dev/shm GOTMPDIR=$${TMPDIR:-/tmp})

# The linters have a module of their own, so that whoever imports this one has none of theirs among his dependencies.
LINT = go tool -modfile=tools/go.mod golangci-lint run --allow-serial-runners

.PHONY: help test race lint bench bench-compare fuzz chaos large cover examples figures results

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s%s\n", $$1, $$2 }' Makefile

test: ## run every test, with the race detector
	go test -run TestTheRealLog ./examples/loans
	$(FAST) go test -race -shuffle=on -p 3 -timeout 40m ./postgres ./kafka $$(go list ./... | grep -v /internal/test/chaos) # those that wait the longest begin
	go test -race -timeout 40m ./internal/test/chaos # needs the machine for itself

race: ## look for races: every test TIMES times (5), each time in another order
	go test -race -shuffle=on -count=$(TIMES) ./...

lint: ## check the format, go.mod, and what go vet and the linters of .golangci.yml find
	@unformatted=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)) || exit 1; \
	if [ -n "$$unformatted" ]; then printf 'run gofmt -w on\n%s\n' "$$unformatted"; exit 1; fi
	go mod tidy -diff
	go vet ./...
	$(LINT) ./...

# Only the packages that have any: to link the tests of all others takes longer than a pass over the benchmarks.
bench: ## run the benchmarks that BENCH (.) matches, each for BENCHTIME (1s), with private servers
	ES_BENCH_SERVERS=1 go test -timeout 1h -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem \
		$$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n 1 dirname | sort -u)

bench-compare: ## compare the benchmarks that BENCH matches with those of revision OLD (main), in RUNS (6) runs of each by turns
	bench/compare.sh '$(OLD)' '$(BENCH)' '$(BENCHTIME)' '$(RUNS)'

fuzz: ## run each fuzz test for MINUTES (1)
	@for pkg in $$(go list ./...); do \
		found=$$(go test -list '^Fuzz' $$pkg) || exit 1; \
		for target in $$(echo "$$found" | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(MINUTES)m $$pkg || exit 1; \
		done; \
	done

chaos: ## break everything for MINUTES (1) as SEED says, and check that nothing was lost; CHAOS takes -brokers 3, -keep, -postgres URL, -kafka HOST:PORT
	go test ./internal/test/chaos -run '^TestChaos$$' -v -count=1 -timeout 0 -args -minutes $(MINUTES) $(if $(SEED),-seed $(SEED)) $(CHAOS)

large: ## a million streams, a stream of a million events, and the like: what it takes, and that memory is bounded
	ES_TEST_LARGE=1 go test -v -timeout 60m -run 'AMillion|ALarge|TenThousand|ASlow' ./internal/test/limits

cover: ## show which statements the tests ran, over all packages
	mkdir -p .cache
	go test -coverpkg=./... -coverprofile=.cache/cover.out ./...
	go tool cover -html=.cache/cover.out -o .cache/cover.html
	go tool cover -func=.cache/cover.out | tail -n 1
	@echo "line by line: .cache/cover.html"

examples: ## run the examples; the one of the loans on the log at LOANS
	go run ./examples/bank
	@if [ -e '$(LOANS)' ]; then set -x; go run ./examples/loans -log '$(LOANS)'; \
	else echo 'left out: examples/loans, as there is no $(LOANS); set LOANS to the log of the BPI Challenge 2012'; fi

figures: ## measure the figures of bench/, or of them those that FIGURES names
	go run ./bench/figures $(FIGURES)

results: ## measure everything, in about 25 minutes, and write bench/RESULTS.md: leave the machine alone meanwhile
	mkdir -p .cache
	go run ./bench/figures -v -json .cache/figures.json
	ES_BENCH_SERVERS=1 ES_BENCH_STORED=10000,1000000,10000000 go test -run '^$$' -timeout 2h -bench . -benchtime 500ms ./bench > .cache/bench.txt
	go run ./bench/report -readme README.md .cache/figures.json .cache/bench.txt
