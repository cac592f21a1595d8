package fastlane

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
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
