package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Micro is a Go benchmark: the median over its repetitions, by unit.
type Micro struct {
	Package string             `json:"package"` // relative to the module
	Name    string             `json:"name"`
	Values  map[string]float64 `json:"values"` // ns/op, allocs/op and what the benchmark reports
}

// microPackages are those with a share in the way of a packet.
var microPackages = []string{"./packet", "./lb", "./modes"}

func runMicro(ctx context.Context, quick bool) ([]Micro, error) {
	fmt.Println("Go benchmarks of", strings.Join(microPackages, ", "))
	count, length := "3", "300ms"
	if quick {
		count, length = "1", "50ms"
	}
	args := []string{"test", "-run", "^$", "-bench", ".", "-benchmem", "-cpu", "1", "-p", "1", "-count", count, "-benchtime", length}
	cmd := exec.CommandContext(ctx, "go", append(args, microPackages...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	found := parseMicro(string(out))
	for _, m := range found {
		fmt.Printf("  %-60s %s\n", m.Package+"."+m.Name, m.summary())
	}
	return found, nil
}

// parseMicro reads what `go test -bench` prints; lines of one benchmark are
// its repetitions.
func parseMicro(out string) []Micro {
	const module = "github.com/uvs-project/uvs/"
	var all []Micro
	index := map[string]int{}
	values := map[string]map[string][]float64{}
	pkg := ""
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "pkg:" {
			pkg = strings.TrimPrefix(fields[1], module)
		}
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		key := pkg + "." + name
		if _, ok := index[key]; !ok {
			index[key] = len(all)
			values[key] = map[string][]float64{}
			all = append(all, Micro{Package: pkg, Name: name, Values: map[string]float64{}})
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				values[key][fields[i+1]] = append(values[key][fields[i+1]], v)
			}
		}
	}
	for key, i := range index {
		for unit, v := range values[key] {
			all[i].Values[unit] = median(v)
		}
	}
	return all
}

func (m Micro) summary() string {
	text := fmt.Sprintf("%.4g ns/op", m.Values["ns/op"])
	for _, unit := range m.units() {
		text += fmt.Sprintf(", %.4g %s", m.Values[unit], unit)
	}
	return text
}
