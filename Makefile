# uvs: build, show, test, measure. Every target works on a fresh clone.
export CGO_ENABLED = 0

.PHONY: build check
build:
	go build -trimpath -ldflags="-s -w" -o uvs ./cmd/uvs

# check is what every commit passes: no root, no network.
check:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	go vet ./...
	go tool staticcheck -checks all,-ST1000 ./...
	CGO_ENABLED=1 go test -race ./...

# bench measures uvs beside its peers, as root, on a quiet machine; BENCH holds
# flags such as -quick or -publish. See docs/performance.md.
.PHONY: bench
bench:
	go run ./integration/bench $(BENCH)
