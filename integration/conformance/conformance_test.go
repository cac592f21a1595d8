package conformance

import (
	"os"
	"path/filepath"
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

func TestVectors(t *testing.T) {
	for _, f := range files(t) {
		t.Run(strings.ToLower(f.Group), func(t *testing.T) {
			for i := range f.Vectors {
				v := &f.Vectors[i]
				t.Run(v.Name, func(t *testing.T) {
					if !v.StableMasked {
						t.Skip("no two boots agreed on it")
					}
					if kind := replay.Inapplicable(v); kind != "" {
						t.Skip(kind)
					}
					played, err := replay.Play(f, v)
					if err != nil {
						t.Fatal(err)
					}
					for _, d := range replay.Check(v, played) {
						t.Error(d)
					}
				})
			}
		})
	}
}
