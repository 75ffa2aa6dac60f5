# Targets are short; what they do is in Go, in .ci/need or in the suites themselves.
GO     ?= go
CLUSTER = $(GO) run ./internal/sqldb/sqldbtest/pgcluster --
# Two databases: more packages at a time than this only wait for each other.
TESTS   = -shuffle=on -p 2 -timeout 40m
# SQLite is C translated to Go: it has no goroutines of its own, and with the race detector takes 15 times as long.
RACE    = -race '-gcflags=modernc.org/...=-race=false'
# What starts servers, or needs more than Go of the machine. The race detector would watch only their clients.
SUITES  = -e /conformance -e /chaos -e /powertest -e /bench$$
UNITS   = $$($(GO) list ./... | grep -v $(SUITES))

.DEFAULT_GOAL := help
.PHONY: help build run test quick test-pg conformance bench bench-scale fuzz soak chaos lint generate check compat clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/parley
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/parley ./cmd/parley

run: ## start a development server, as the README does
	$(GO) run ./cmd/parley dev

test: lint ## everything: Go on SQLite and PostgreSQL with the race detector, and the suites that start servers
	@.ci/need curl postgres node fuse
	$(CLUSTER) $(GO) test $(RACE) $(TESTS) $(UNITS)
	$(CLUSTER) $(GO) test $(TESTS) $$($(GO) list ./... | grep $(SUITES))

quick: ## Go tests on SQLite alone, for the inner loop
	PARLEY_TEST_DB=sqlite $(GO) test $(UNITS)

test-pg: ## Go tests on both databases, without the suites that start servers
	@.ci/need curl postgres
	$(CLUSTER) $(GO) test $(RACE) -p 2 $(UNITS)

conformance: ## the official clients, SDK bot and chat client against a running parley
	@.ci/need postgres node
	$(CLUSTER) $(GO) test -v -count=1 ./conformance/...

bench: ## the numbers of bench/RESULTS.md, on this machine
	$(GO) run ./bench -out bench/RESULTS.md -date "$$(date +%F)"

bench-scale: ## the numbers of bench/SCALE.md, on this machine, in about an hour: what grows, on SQLite and PostgreSQL
	@.ci/need postgres
	$(GO) run ./bench -scale -rounds 3 -step 2s -out bench/SCALE.md -date "$$(date +%F)"
	$(MAKE) generate

fuzz: ## every fuzz test, FUZZTIME each (20s)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for name in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "── $$pkg $$name"; PARLEY_TEST_DB=sqlite $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $${FUZZTIME:-20s} $$pkg; \
	  done; \
	done

soak: ## the crash, cut and order tests, SOAK rounds long (200)
	@.ci/need postgres
	PARLEY_SOAK=$${SOAK:-200} $(CLUSTER) $(GO) test -count=1 -timeout 12h -run 'Kill|Crash|Cut|OrderPerLane' $$($(GO) list ./internal/...)

chaos: ## list the tests of ./chaos; make chaos-TEST-SETUP runs one for long, such as chaos-kill-cluster, and notes it in RELIABILITY.md
	@$(GO) test -list . ./chaos | sed -n 's/^Test/chaos-/p' | tr A-Z a-z

chaos-%:
	@.ci/need postgres fuse
	PARLEY_CHAOS=long PARLEY_MEASURED=../RELIABILITY.md $(CLUSTER) $(GO) test -v -count=1 -timeout 60m -run '(?i)^Test$(subst -,$$/^,$*)$$' ./chaos

lint: ## gofmt, go vet, and staticcheck where go.mod has it
	@test -z "$$(gofmt -l cmd internal spec bench chaos conformance/*.go 2>/dev/null | tee /dev/stderr)" || { echo "run gofmt -w on the files above"; exit 1; }
	$(GO) vet ./...
	@if $(GO) tool | grep -q staticcheck; then $(GO) tool staticcheck ./...; fi

generate: ## rewrite what is made from the code and from bench/SCALE.md: COMPATIBILITY.md, costs, and the tables in the documents
	$(GO) test ./bench/costs -run Generated -update
	$(GO) test ./internal/archtest ./bench/sizing -run Generated -update

check: generate test ## all that CI does, and nothing generated is out of date
	git diff --exit-code

compat: ## every place that deliberately differs from the cloud
	@grep -rn --include='*.go' '// Compat:' cmd internal | sed 's/:[[:space:]]*\/\/ Compat:/: /'

clean: ## remove what was built
	rm -rf bin
