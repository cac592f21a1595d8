package conformance

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/replay"
)

// folder is where the vectors are: UVS_VECTORS names another one.
func folder() string {
	if dir := os.Getenv("UVS_VECTORS"); dir != "" {
		return dir
	}
	return "testdata"
}

// files reads all files of vectors. One that shows what another kernel does
// differently is no group of its own.
func files(t *testing.T) (all []*replay.File) {
	t.Helper()
	for _, pattern := range []string{"*.json", "*.json.gz"} {
		names, err := filepath.Glob(filepath.Join(folder(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasPrefix(filepath.Base(name), "differences-") {
				continue
			}
			f, err := replay.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no vectors in %s", folder())
	}
	return all
}

// TestVectors plays every vector. What differs on purpose is explained by one
// of replay.Purposes, each of which at least one vector must need; that is not
// asked where a few vectors, or those of another folder, are run.
func TestVectors(t *testing.T) {
	c := count{purposes: map[string]int{}, skipped: map[string]int{}}
	for _, f := range files(t) {
		t.Run(strings.ToLower(f.Group), func(t *testing.T) {
			for i := range f.Vectors {
				t.Run(f.Vectors[i].Name, func(t *testing.T) { c.vector(t, f, &f.Vectors[i]) })
			}
		})
	}
	t.Logf("%d vectors equal, %d different on purpose, %d different", c.equal, c.onPurpose, c.different)
	for _, p := range replay.Purposes {
		t.Logf("on purpose: %s: %d vectors", p.Name, c.purposes[p.Name])
		if c.purposes[p.Name] == 0 && whole() {
			t.Errorf("no vector shows the difference %q any more: take it from the list", p.Name)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(c.skipped)) {
		t.Logf("skipped: %s: %d vectors", kind, c.skipped[kind])
	}
}

// whole says whether all our own vectors are run.
func whole() bool {
	return os.Getenv("UVS_VECTORS") == "" && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
}

// count is what became of the vectors.
type count struct {
	equal, onPurpose, different int
	purposes, skipped           map[string]int // vectors
}

// vector plays one.
func (c *count) vector(t *testing.T, f *replay.File, v *replay.Vector) {
	if !v.StableMasked {
		c.skip(t, "no two recordings of it agree")
	}
	if kind := replay.Inapplicable(v); kind != "" {
		c.skip(t, kind)
	}
	played, err := replay.Play(f, v)
	if err != nil {
		c.different++
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, d := range replay.Check(v, played) {
		if p := replay.Explain(v, &d); p != nil {
			used[p.Name] = true
			continue
		}
		t.Error(d)
	}
	for name := range used {
		c.purposes[name]++
	}
	switch {
	case t.Failed():
		c.different++
	case len(used) > 0:
		c.onPurpose++
	default:
		c.equal++
	}
}

func (c *count) skip(t *testing.T, kind string) {
	c.skipped[kind]++
	t.Skip(kind)
}
