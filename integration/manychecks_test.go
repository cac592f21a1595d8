package integration

// Ten thousand real servers, checked every two seconds, in the topology of
// health_test.go: rs1 has all their addresses, 10.1.0.0/16.

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// usage is the processor time that a process has used, and its memory in KiB.
func usage(t *testing.T, pid int) (cpu time.Duration, resident int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third, the state, on
	for _, f := range fields[11:13] {
		ticks, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		cpu += time.Duration(ticks) * (time.Second / 100) // USER_HZ
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ = strings.Cut(string(status), "VmRSS:")
	resident, err = strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return cpu, resident
}

// busy is the processor time that all programs of the machine have used.
func busy(t *testing.T) (all time.Duration) {
	t.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range strings.Fields(strings.SplitN(string(stat), "\n", 2)[0])[1:9] {
		ticks, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		if i != 3 && i != 4 { // idle, iowait
			all += time.Duration(ticks) * (time.Second / 100)
		}
	}
	return all
}

// mostOfACore, in per cent, is five times what uvs aims at: how fast the machine
// is counts too, and what else it does, so this only tells a check that has
// become dear.
const mostOfACore = 100

func TestTenThousandChecksAreCheap(t *testing.T) {
	need(t, "nginx", "ip")
	const services, servers = 100, 100
	w := newWard(t, 1)
	run(t, w.servers[0], "ip", "route", "add", "local", "10.1.0.0/16", "dev", "lo")
	run(t, w.director, "ip", "route", "add", "10.1.0.0/16", "via", "10.0.0.11")
	if err := nginx(w.servers[0]); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("limits: {flows: 10000}\nannouncement: {vip_up: all}\nservices:\n")
	for i := range services {
		fmt.Fprintf(&b, "  - name: s%d\n    listen: [\"203.0.113.10:%d/tcp\"]\n    mode: tun\n    quorum: 100\n    health: {type: tcp, port: 80, interval: 2s, timeout: 2s}\n    real_servers:\n", i, 1000+i)
		for j := range servers {
			fmt.Fprintf(&b, "      - {address: 10.1.%d.%d}\n", i, j+1)
		}
	}
	d := startDirector(t, w.director, b.String())
	err := lab.Wait(within(t), "all real servers to be up, which the VIP needs", func() error {
		if !strings.Contains(d.process.Output(), "VIP is up") {
			return errors.New("it is not")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Other programs on the machine only ever add to what is measured.
	core, others, resident := 100.0, 0.0, 0
	for range 3 {
		before, _ := usage(t, d.process.PID())
		allBefore, start := busy(t), time.Now()
		time.Sleep(4 * time.Second) // what is measured goes on meanwhile
		var after time.Duration
		after, resident = usage(t, d.process.PID())
		took := time.Since(start).Seconds()
		if c := 100 * (after - before).Seconds() / took; c < core {
			core, others = c, 100*(busy(t)-allBefore).Seconds()/took-c
		}
	}
	t.Logf("%.1f %% of a core, %d MiB; others used %.0f %%", core, resident>>10, others)
	if core > mostOfACore {
		t.Errorf("%.1f %% of a core, want at most %d", core, mostOfACore)
	}
	if resident > 200<<10 {
		t.Errorf("%d MiB resident, want at most 200", resident>>10)
	}
	if err := lab.Wait(within(t), "all real servers to be up afterwards", func() error {
		metrics, err := d.get(within(t), "/metrics")
		if n := strings.Count(metrics, `state="up"} 1`); err == nil && n != services*servers {
			err = fmt.Errorf("%d are", n)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
