package fastlane

import (
	"bytes"
	"os"
	"regexp"
	"testing"
)

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
