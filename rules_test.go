// Package uvs holds the rules of the repository as tests: who may import whom,
// that every package says what it is, and that the examples in the
// documentation are right. The program is in cmd/uvs.
package uvs

import (
	"crypto/sha256"
	"encoding/hex"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/lb/sched"
)

const module = "github.com/uvs-project/uvs/"

// imports says which packages of ours a package may import: those below it.
// Tests are free. "any" may import every package.
var imports = map[string][]string{
	"packet":            {},
	"packet/packettest": {"packet"},
	"stack":             {"packet"},
	"stack/host":        {"packet", "stack"},
	"stack/fastlane":    {"packet"},
	"lb":                {"packet"},
	"lb/sched":          {"packet", "lb"},
	"lb/twin":           {},
	"modes":             {"packet", "lb"},
	"bgp":               {"bgp/bfd"},
	"bgp/bfd":           {},
	"announce":          {},
	"config":            {},
	"config/compat":     {},
	"drain":             {},
	"health":            {},
	"metrics":           {"announce", "drain", "bgp", "bgp/bfd", "packet", "lb", "stack", "health"},
	"admin":             {},
	"realserver":        {"packet", "stack", "stack/host"},
	"demo":              {"integration/lab", "realserver"},
	"replay":            {"packet", "stack", "lb", "lb/sched", "modes", "config/compat"},
	"cmd/uvs":           {"any"},
	"integration":       {"integration/lab", "packet/packettest"},
	"integration/lab":   {},
	"integration/bench": {"admin", "integration/lab"},
	"integration/echo":  {"integration/lab"},

	"integration/conformance": {"replay"},
}

// owners says who alone may import a library, so that it can be replaced in
// one place. A path stands for all below it, a longer one for itself.
var owners = map[string][]string{
	"gvisor.dev/gvisor/pkg/tcpip":         {"packet", "stack", "stack/host"}, // headers and checksums
	"gvisor.dev/gvisor/pkg/tcpip/stack":   {"stack"},
	"gvisor.dev/gvisor/pkg/buffer":        {"stack"},
	"github.com/spf13/viper":              {"config"},
	"github.com/go-viper/mapstructure":    {"config"},
	"github.com/prometheus/client_golang": {"metrics"},
	"github.com/osrg/gobgp":               {"bgp"},
	"google.golang.org/protobuf":          {"bgp"}, // GoBGP's API
	"github.com/spf13/cobra":              {"cmd/uvs"},
	"github.com/google/nftables":          {"stack/host"},
	"github.com/vishvananda/netlink":      {"stack/host", "stack/fastlane", "realserver", "integration/lab"},
	"github.com/cilium/ebpf":              {"stack/fastlane", "realserver"},
	"github.com/gaissmai/bart":            {"stack/host"},
	"github.com/gopacket/gopacket":        {"integration/lab", "demo", "replay"},
	"github.com/google/go-cmp":            {},
	"go.uber.org/goleak":                  {},
	"github.com/vishvananda/netns":        {"stack/host", "realserver", "integration/lab"},
}

// A source is one Go file.
type source struct {
	path string // slashes
	file *ast.File
	test bool
}

// sources reads all Go files, by the folder of their package.
func sources(t *testing.T) map[string][]source {
	t.Helper()
	all := map[string][]source{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bench-out") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		all[path.Dir(name)] = append(all[path.Dir(name)], source{name, f, strings.HasSuffix(name, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImportsPointDown(t *testing.T) {
	for pkg, files := range sources(t) {
		if pkg == "." {
			continue
		}
		allowed, listed := imports[pkg]
		if !listed {
			t.Errorf("%s: not in the table of imports above; DESIGN draws where it stands", pkg)
			continue
		}
		for _, f := range files {
			if f.test || slices.Contains(allowed, "any") {
				continue
			}
			for _, i := range importsOf(t, f) {
				if ours, ok := strings.CutPrefix(i, module); ok && !slices.Contains(allowed, ours) {
					t.Errorf("%s imports %s, which is not below it", f.path, ours)
				}
			}
		}
	}
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	for pkg, files := range sources(t) {
		for _, f := range files {
			if f.test {
				continue
			}
			for _, i := range importsOf(t, f) {
				if library := ownedLibrary(i); library != "" && !slices.Contains(owners[library], pkg) {
					t.Errorf("%s imports %s, which belongs to %v", f.path, i, owners[library])
				}
			}
		}
	}
}

// ownedLibrary is the longest path in owners that holds the import.
func ownedLibrary(i string) (longest string) {
	for library := range owners {
		if (i == library || strings.HasPrefix(i, library+"/")) && len(library) > len(longest) {
			longest = library
		}
	}
	return longest
}

func importsOf(t *testing.T, f source) (paths []string) {
	t.Helper()
	for _, i := range f.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", f.path, err)
		}
		paths = append(paths, p)
	}
	return paths
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for pkg, files := range sources(t) {
		var with []string
		var name string
		for _, f := range files {
			if f.file.Doc != nil {
				with = append(with, f.path)
				name = f.file.Name.Name
				text := f.file.Doc.Text()
				if !strings.HasPrefix(text, "Package "+name+" ") && !(name == "main" && strings.HasPrefix(text, "Command "+path.Base(pkg)+" ")) {
					t.Errorf("%s: the package comment begins %q", f.path, strings.SplitN(text, "\n", 2)[0])
				}
			}
		}
		if len(with) != 1 {
			t.Errorf("%s: %d files have a package comment, want one: %v", pkg, len(with), with)
		}
	}
}

// documents are the files whose examples are held to be right.
func documents(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(docs, "README.md")
}

func TestConfigurationsInDocumentsParse(t *testing.T) {
	n := 0
	for _, doc := range documents(t) {
		raw, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for format, examples := range fences(string(raw)) {
			if format != "yaml" && format != "toml" && format != "json" {
				continue
			}
			for _, example := range examples {
				n++
				if _, err := config.Parse([]byte(example), format, config.Options{Schedulers: sched.Names(), SchedulerFlags: sched.Flags}); err != nil {
					t.Errorf("%s: %s example: %v\n%s", doc, format, err, example)
				}
			}
		}
	}
	if n == 0 {
		t.Error("no example found; is this test still reading the documents?")
	}
}

func TestSchedulersAreInTheirDocument(t *testing.T) {
	raw, err := os.ReadFile("docs/schedulers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sched.Names() {
		if n := strings.Count(string(raw), "\n| `"+name+"` |"); n != 1 {
			t.Errorf("docs/schedulers.md has %d rows for %s, want one", n, name)
		}
	}
}

// fences are the fenced blocks of a Markdown text, by their language.
func fences(text string) map[string][]string {
	blocks := map[string][]string{}
	language, inside := "", false
	var block strings.Builder
	for line := range strings.Lines(text) {
		rest, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && inside:
			blocks[language] = append(blocks[language], block.String())
			block.Reset()
			inside = false
		case fence:
			language, inside = rest, true
		case inside:
			block.WriteString(line)
		}
	}
	return blocks
}

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	for _, doc := range documents(t) {
		raw, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(raw), "](")[1:] {
			target, _, _ := strings.Cut(part, ")")
			target, _, _ = strings.Cut(target, "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), target)); err != nil {
				t.Errorf("%s links to %s: %v", doc, target, err)
			}
		}
	}
}

// TestKernelProgramsAreOfTheirSource: each program of the kernel that was
// compiled has the sum of what it was compiled from beside it.
func TestKernelProgramsAreOfTheirSource(t *testing.T) {
	programs := 0
	walk := func(file string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".c.sum") {
			return err
		}
		programs++
		recorded, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		source, err := os.ReadFile(strings.TrimSuffix(file, ".sum"))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(source)
		if want, _, _ := strings.Cut(string(recorded), " "); want != hex.EncodeToString(sum[:]) {
			t.Errorf("%s has changed since it was compiled: run make generate", strings.TrimSuffix(file, ".sum"))
		}
		return nil
	}
	if err := filepath.WalkDir(".", walk); err != nil {
		t.Fatal(err)
	}
	if programs < 2 {
		t.Errorf("found %d programs; is this test still looking at the right files?", programs)
	}
}
