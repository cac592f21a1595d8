package integration

// The fast lane as the whole program has it, in the topology of bed_test.go.

import (
	"os"
	"strings"
	"testing"
)

// TestTheFastLaneCarriesTheBulk holds what crossed the TUN device against what
// the director says that it carried while a file goes up.
func TestTheFastLaneCarriesTheBulk(t *testing.T) {
	need(t, programs...)
	b, err := sharedBed()
	if err != nil {
		t.Fatal(err)
	}
	file, err := big()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file.path)
	if err != nil {
		t.Fatal(err)
	}
	size := float64(info.Size())
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			before := metrics(t, b)
			upload(t, &target{b, v})
			after := metrics(t, b)
			moved := func(metric string, with ...string) float64 {
				return total(after, metric, with...) - total(before, metric, with...)
			}
			service := `service="` + strings.ReplaceAll(v.name, " ", "-") + `"`
			carried, crossed := moved("uvs_bytes_total", service, `direction="in"`), moved("uvs_tun_queue_read_bytes_total")
			if carried < size {
				t.Errorf("%.0f bytes counted for the service, of a file of %.0f", carried, size)
			}
			if crossed > size/4 {
				t.Errorf("%.0f bytes crossed the TUN device, of a file of %.0f", crossed, size)
			}
		})
	}
}
