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
			service := `service="` + strings.ReplaceAll(v.name, " ", "-") + `"`
			// On a busy machine uvs may be kept from offering the flow, or
			// from saying that it lives, while a good part of the file goes
			// by: one file of three is enough.
			least := size
			for range 3 {
				before := metrics(t, b)
				upload(t, &target{b, v})
				after := metrics(t, b)
				moved := func(metric string, with ...string) float64 {
					return total(after, metric, with...) - total(before, metric, with...)
				}
				if carried := moved("uvs_bytes_total", service, `direction="in"`); carried < size {
					t.Errorf("%.0f bytes counted for the service, of a file of %.0f", carried, size)
				}
				least = min(least, moved("uvs_tun_queue_read_bytes_total"))
				if least <= size/4 {
					return
				}
			}
			t.Errorf("%.0f bytes crossed the TUN device, of a file of %.0f", least, size)
		})
	}
}
