# CI runs these targets: see .ci/run and .github/workflows.

# Variables, to be given with a target: make fuzz MINUTES=10
#
#	MINUTES    fuzz, chaos: duration in minutes (of each fuzz test)
#	TIMES      race: number of runs of each test
#	BENCH      bench, bench-compare: regular expression of the benchmarks
#	BENCHTIME  bench, bench-compare: duration of each benchmark, or a number of iterations such as 1x
#	OLD        bench-compare: revision to compare with
#	RUNS       bench-compare: number of runs of each revision
#	FIGURES    figures: names of the figures; all if empty
#	SEED       chaos: seed of the run to repeat; a new one if empty
#	BESIDE     chaos: revision of another release that half of the processes run; none if empty
#	CHAOS      chaos: further flags: -powercut, -secure, -brokers 3, -keep, -postgres URL, -kafka HOST:PORT
#	VERSION    release-check: version to release, such as v0.9.0
#	LOANS      examples: log for examples/loans
MINUTES   = 1
TIMES     = 5
BENCH     = .
BENCHTIME = 1s
OLD       = main
RUNS      = 6
FIGURES   =
SEED      =
BESIDE    =
CHAOS     =
VERSION   =
LOANS     = ../shared/data/bpic2012.xes.gz

# Tests create hundreds of databases, which takes ten times as long on a disk. So their files are kept in memory if there
# is enough of it. To use the disk: make test FAST=
FAST = $(shell [ -w /dev/shm ] && ! grep -q ' /dev/shm .*noexec' /proc/mounts && [ $$(df -Pk /dev/shm | awk 'END { print $$4 }') -gt 4000000 ] \
	&& echo TMPDIR=/dev/shm GOTMPDIR=$${TMPDIR:-/tmp})

# The tools are in a module of their own, so that they are not dependencies of this module.
TOOL = go tool -modfile=tools/go.mod

# The exported API that releases must keep. Until the file is recorded, make api only prints.
API = go run -C tools ./api -module .. -baseline api.txt

.PHONY: help test race lint vulncheck api api-record release-check bench bench-compare fuzz chaos large cover examples figures results

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s%s\n", $$1, $$2 }' Makefile

test: ## run all tests with the race detector
	go test -run TestTheRealLog ./examples/loans
	$(FAST) go test -race -shuffle=on -p 3 -timeout 40m ./postgres ./kafka $$(go list ./... | grep -v /internal/test/chaos) # the slowest packages first
	go test -race -timeout 40m ./internal/test/chaos # alone: it loads all CPUs

race: ## run all tests TIMES times (5) with the race detector, in random order
	go test -race -shuffle=on -count=$(TIMES) ./...

lint: ## check formatting and go.mod, run go vet and the linters of .golangci.yml
	@unformatted=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)) || exit 1; \
	if [ -n "$$unformatted" ]; then printf 'run gofmt -w on\n%s\n' "$$unformatted"; exit 1; fi
	go mod tidy -diff
	go vet ./...
	go vet -C tools ./api
	$(TOOL) golangci-lint run --allow-serial-runners ./...

vulncheck: ## check dependencies for known vulnerabilities (needs the network)
	$(TOOL) govulncheck ./...

api: ## print the exported API, or compare it with tools/api.txt once that is recorded
	@$(API)

api-record: ## record the exported API in tools/api.txt as the baseline
	@$(API) -write

release-check: ## check that the commit can be tagged as VERSION, and print the commands that tag it
	tools/release-check.sh '$(VERSION)'

# Only packages with benchmarks: linking the tests of the others takes longer than one pass over all benchmarks.
bench: ## run the benchmarks matching BENCH (.) for BENCHTIME (1s) each, on private servers
	ES_BENCH_SERVERS=1 go test -timeout 1h -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem \
		$$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n 1 dirname | sort -u)

bench-compare: ## compare the benchmarks matching BENCH with revision OLD (main), in RUNS (6) alternating runs
	bench/compare.sh '$(OLD)' '$(BENCH)' '$(BENCHTIME)' '$(RUNS)'

fuzz: ## run each fuzz test for MINUTES (1)
	@for pkg in $$(go list ./...); do \
		found=$$(go test -list '^Fuzz' $$pkg) || exit 1; \
		for target in $$(echo "$$found" | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(MINUTES)m $$pkg || exit 1; \
		done; \
	done

chaos: ## inject faults for MINUTES (1), then check that no guarantee was violated; SEED repeats a run
	$(if $(BESIDE),tools/chaos-binary.sh '$(BESIDE)' .cache/chaos-beside)
	go test ./internal/test/chaos -run '^TestChaos$$' -v -count=1 -timeout 0 \
		-args -minutes $(MINUTES) $(if $(SEED),-seed $(SEED)) $(if $(BESIDE),-beside $(CURDIR)/.cache/chaos-beside) $(CHAOS)

large: ## run the tests with very large numbers and sizes, and those that take long on real servers
	ES_TEST_LARGE=1 go test -v -timeout 60m -run 'AMillion|ALarge|TenThousand|ASlow' ./internal/test/limits
	ES_TEST_LARGE=1 go test -v -timeout 60m -run '^TestTheDocumentedRightsSuffice$$' ./kafka
	ES_TEST_LARGE=1 go test -v -timeout 60m -run '^TestChaosBesideTheReleaseBefore$$' ./internal/test/chaos

cover: ## measure which statements the tests cover, over all packages
	mkdir -p .cache
	go test -coverpkg=./... -coverprofile=.cache/cover.out ./...
	go tool cover -html=.cache/cover.out -o .cache/cover.html
	go tool cover -func=.cache/cover.out | tail -n 1
	@echo "by line: .cache/cover.html"

examples: ## run the examples; if the file LOANS exists, the loans with that log as well
	go run ./examples/bank
	go run ./examples/loans
	@if [ -e '$(LOANS)' ]; then set -x; go run ./examples/loans -log '$(LOANS)'; fi

figures: ## measure the figures of bench/, or only those in FIGURES
	go run ./bench/figures $(FIGURES)

results: ## measure everything and write bench/RESULTS.md (about 25 minutes, on an idle machine)
	mkdir -p .cache
	go run ./bench/figures -v -json .cache/figures.json
	ES_BENCH_SERVERS=1 ES_BENCH_STORED=10000,1000000,10000000 go test -run '^$$' -timeout 2h -bench . -benchtime 500ms ./bench > .cache/bench.txt
	go run ./bench/report -readme README.md .cache/figures.json .cache/bench.txt
