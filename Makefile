# uvs: build, show, test, measure. Every target works on a fresh clone.
export CGO_ENABLED = 0

.PHONY: build demo check tools test fuzz twin scale bench generate image

build:
	go build -trimpath -ldflags="-s -w" -o uvs ./cmd/uvs

# demo shows every mode at work in a lab of network namespaces, as root. It
# needs no program but uvs itself. DEMO holds flags such as --hold or --json.
demo: build
	./uvs demo $(DEMO)

# check is what every commit passes: no network, and what needs root is skipped
# without it.
check:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	go vet ./...
	go tool staticcheck -checks all,-ST1000 ./...
	CGO_ENABLED=1 go test -race -timeout 60m $$(go list ./... | grep -v /integration$$)

# tools installs the Debian packages that the tests use and that are missing.
tools:
	@.ci/tools

# test is everything: check, then the whole program in labs of network
# namespaces against programs that we did not write, as root. What cannot run
# here is skipped and says why; with CI=true that is a failure.
test: tools check
	go test -v -timeout 90m ./integration

# fuzz runs every fuzz test for FUZZTIME.
FUZZTIME ?= 1m
fuzz:
	@for pkg in $$(go list ./...); do \
		for test in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$test"; \
			go test -run '^$$' -fuzz "^$$test$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

# twin compares TWIN packets with a second balancer that is written for clarity
# alone; a failure prints the seed that shows it again. check does so for fewer,
# and always the same ones.
TWIN ?= 20000000
twin:
	go test -v -timeout 2h -run '^TestTwin$$' ./lb/twin -packets $(TWIN) -seed 0

# scale measures what docs/performance.md says under Scale, on a quiet machine,
# and redraws its picture. It needs 3 GiB of memory and some minutes.
scale:
	UVS_TEST_LARGE=1 UVS_SCALE_SVG=$(CURDIR)/docs/pauses.svg go test -v -timeout 1h ./lb \
		-run 'TestTenMillionFlows|TestScalePauses|TestAChangedWeight' -bench 'Scale|UpdateService|Apply' -benchtime 2s

# bench measures uvs beside its peers, as root, on a quiet machine; BENCH holds
# flags such as -quick or -publish. See docs/performance.md.
bench:
	go run ./integration/bench $(BENCH)

# generate compiles the kernel's programs anew, after a change of lane.c or
# decap.c. It needs clang, llvm and libbpf-dev; everybody else uses the
# committed objects.
generate:
	go generate ./stack/fastlane ./realserver

# image builds the container image. See docs/container.md.
ENGINE ?= docker
image:
	$(ENGINE) build -t uvs .
