package fastlane

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestObjectIsOfThisSource(t *testing.T) {
	source, err := os.ReadFile("lane.c")
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := os.ReadFile("lane.c.sum")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(source)
	if want, _, _ := strings.Cut(string(recorded), " "); want != hex.EncodeToString(sum[:]) {
		t.Error("lane.c has changed since lane_bpfel.o and lane_bpfeb.o were compiled: run make generate")
	}
}

// TestTheDocumentationNamesEveryHelper: docs/fastlane.md says since which
// kernel there is what the program calls.
func TestTheDocumentationNamesEveryHelper(t *testing.T) {
	source, err := os.ReadFile("lane.c")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/fastlane.md")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`\bbpf_(\w+)\(`).FindAllSubmatch(source, -1)
	if len(calls) < 10 {
		t.Fatalf("found %d calls; is this test still reading the program?", len(calls))
	}
	for _, call := range calls {
		helper := "bpf_" + string(call[1])
		if helper == "bpf_htons" || helper == "bpf_ntohs" {
			continue // no helpers: the compiler's own
		}
		if !bytes.Contains(page, []byte("`"+helper+"`")) {
			t.Errorf("the page does not say since when there is %s", helper)
		}
	}
}
