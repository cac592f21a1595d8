package replay_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/uvs-project/uvs/replay"
)

var update = flag.Bool("update", false, "write the page of differences anew")

// TestPage holds the documentation to the list that the conformance test uses.
func TestPage(t *testing.T) {
	const name = "../docs/ipvs-differences.md"
	if *update {
		if err := os.WriteFile(name, replay.Page(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page, replay.Page()) {
		t.Errorf("%s is not what the list of purposes says: go test ./replay -run TestPage -update", name)
	}
}
