package integration

// What goes wrong around the fast lane, in the topology of lanebed_test.go:
// connections go on by the TUN road, and come back to the lane when they can.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// uplinks of the director are named after those at their other end.
var uplinks = []string{"client", "rs"}

// ourLinks are the tcx links of the director's program at its uplinks.
func ourLinks(t *testing.T, h *lab.Host) (ids map[string]link.ID) {
	t.Helper()
	ids = map[string]link.ID{}
	for _, name := range uplinks {
		for _, p := range tcxAt(t, h, name) {
			prog, err := ebpf.NewProgramFromID(p.ID)
			if err != nil {
				t.Fatal(err)
			}
			info, err := prog.Info()
			prog.Close()
			if err != nil {
				t.Fatal(err)
			}
			if id, ok := p.LinkID(); ok && info.Name == "lane" {
				ids[name] = id
			}
		}
	}
	return ids
}

func tcxAt(t *testing.T, h *lab.Host, dev string) (all []link.AttachedProgram) {
	t.Helper()
	if err := h.Do(func() error {
		at, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		result, err := link.QueryPrograms(link.QueryOptions{Target: at.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			all = result.Programs
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// needTCX skips where the kernel attaches by filters, which stack/fastlane's
// own tests take apart.
func needTCX(t *testing.T, h *lab.Host) {
	t.Helper()
	if err := h.Do(func() error {
		_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
		return err
	}); err != nil {
		t.Skipf("this kernel has no tcx: %v", err)
	}
}

// logged waits until the director has logged both.
func (d *director) logged(t *testing.T, all ...string) {
	t.Helper()
	if err := lab.Wait(within(t), "the log", func() error {
		for _, s := range all {
			if !strings.Contains(d.process.Output(), s) {
				return fmt.Errorf("%q is not in it", s)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestAKilledDirectorsLaneStops: what it has put there carries nothing two
// seconds later, and the next director takes the connection on. In dr, as in
// nat the real server's packets meanwhile reach the client from an address
// that it has no connection with, and it resets them.
func TestAKilledDirectorsLaneStops(t *testing.T) {
	need(t)
	b := newLaneBed(t)
	d := startDirector(t, b.director, strings.ReplaceAll(laneServices, "mode: nat", "mode: dr"))
	k := b.talk(t)
	k.intoTheLane(t, d)
	if err := d.process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-d.process.Exited()
	killed := time.Now()
	words := func(f *lab.Frame) bool {
		tcp, ok := f.Packet(false).TransportLayer().(*layers.TCP)
		return ok && len(tcp.Payload) > 0
	}
	sent, err := b.client.Capture("director", words)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := b.rs.Capture("director", words)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write([]byte("anybody?")); err != nil { // TCP sends it again and again
		t.Fatal(err)
	}
	// After two seconds the lane must have stopped. The half second more is for
	// the capture's clock: TCP tries after 1.4 and then after 3 seconds.
	late := func(f *lab.Frame) bool { return f.Time.Sub(killed) > 2500*time.Millisecond }
	if _, err := sent.Wait(within(t), "the client to have tried for two seconds", late); err != nil {
		t.Fatal(err)
	}
	// The kernel has no route for the VIP any more: what arrives, the lane carried.
	for _, f := range seen.Stop() {
		if !f.Out && late(&f) {
			t.Errorf("a packet of the client's was carried %v after the director's death", f.Time.Sub(killed))
		}
	}
	sent.Stop()

	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, 8)
	if _, err := k.Read(heard); err != nil || string(heard) != "anybody?" {
		t.Fatalf("heard %q, %v", heard, err)
	}
	k.intoTheLane(t, d)
}

// TestALaneThatSomebodyRemoves: a connection goes on by the TUN road, the
// cause is told once, and the program comes back.
func TestALaneThatSomebodyRemoves(t *testing.T) {
	need(t)
	b := newLaneBed(t)
	needTCX(t, b.director)
	d := startDirector(t, b.director, laneServices)
	k := b.talk(t)
	k.intoTheLane(t, d)
	for name, id := range ourLinks(t, b.director) {
		l, err := link.NewFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Detach(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l.Close()
	}
	before := crossedTUN(t, d)
	k.say(t, 20)
	// Unless uvs, which looks every five seconds, has just done so.
	if n := crossedTUN(t, d) - before; n < 40 && !strings.Contains(d.process.Output(), "somebody has removed the program") {
		t.Errorf("%d packets crossed the TUN device, want those of 20 exchanges", n)
	}
	d.logged(t, "somebody has removed the program", "the fast lane is well again")
	if n := strings.Count(d.process.Output(), "somebody has removed the program"); n != 2 {
		t.Errorf("told %d times, want once for each of two interfaces", n)
	}
	k.staysInTheLane(t, d, "after the program came back")
}

// TestALaneWhoseInterfaceChanges: it is renamed, goes down, is removed and
// made anew; each time the connection goes on and comes back to the lane.
func TestALaneWhoseInterfaceChanges(t *testing.T) {
	need(t, "ip")
	b := newLaneBed(t)
	d := startDirector(t, b.director, laneServices)
	k := b.talk(t)
	k.intoTheLane(t, d)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"renamed", func() {
			run(t, b.director, "ip", "link", "set", "client", "down")
			run(t, b.director, "ip", "link", "set", "client", "name", "wan0")
			run(t, b.director, "ip", "link", "set", "wan0", "up")
		}},
		{"removed and made anew", func() {
			run(t, b.director, "ip", "link", "del", "wan0")
			b.client.Link(b.director, "198.18.0.2/24", "198.18.0.1/24").Route("default", "198.18.0.1")
			drawn(t, b.client.Lab())
		}},
	} {
		step.do()
		k.say(t, 10)
		k.staysInTheLane(t, d, step.name)
	}
}

// TestASecondDirectorLeavesTheLaneAlone: it is refused before it touches
// anything.
func TestASecondDirectorLeavesTheLaneAlone(t *testing.T) {
	need(t)
	b := newLaneBed(t)
	needTCX(t, b.director)
	d := startDirector(t, b.director, laneServices)
	k := b.talk(t)
	k.intoTheLane(t, d)
	links := fmt.Sprint(ourLinks(t, b.director))
	if out, err := b.director.Run(within(t), d.bin, "run", "-c", d.file); err == nil || !strings.Contains(err.Error(), "another uvs is running") {
		t.Errorf("a second director: %v\n%s", err, out)
	}
	if now := fmt.Sprint(ourLinks(t, b.director)); now != links {
		t.Errorf("the program's links were %s and are %s", links, now)
	}
	k.staysInTheLane(t, d, "beside another director")
}

// TestProgramsOfOthersStay: one at the same hook by tcx, one as a filter of a
// clsact, from before the director's start until after its end, however that
// comes. A filter that a killed director of an older kernel left goes, also
// without the lane.
func TestProgramsOfOthersStay(t *testing.T) {
	need(t)
	b := newLaneBed(t)
	needTCX(t, b.director)
	theirs := passing(t, "theirs")
	var index int
	attrs := netlink.FilterAttrs{Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 7, Protocol: unix.ETH_P_ALL}
	if err := b.director.Do(func() error {
		at, err := netlink.LinkByName("client")
		if err != nil {
			return err
		}
		index = at.Attrs().Index
		attached, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: theirs, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return err
		}
		t.Cleanup(func() { attached.Close() })
		attrs.LinkIndex = index
		return errors.Join(
			netlink.QdiscAdd(&netlink.GenericQdisc{
				QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}, QdiscType: "clsact",
			}),
			netlink.FilterAdd(&netlink.BpfFilter{FilterAttrs: attrs, Fd: theirs.FD(), Name: "theirs", DirectAction: true}),
		)
	}); err != nil {
		t.Fatal(err)
	}
	stay := func(when string) {
		t.Helper()
		n := 0
		id, _ := mustInfo(t, theirs).ID()
		for _, p := range tcxAt(t, b.director, "client") {
			if p.ID == id {
				n++
			}
		}
		if names := filterNames(t, b.director, index); n != 1 || fmt.Sprint(names) != "[theirs]" {
			t.Errorf("%s: %d of their tcx programs and the filters %v are there", when, n, names)
		}
	}
	d := startDirector(t, b.director, laneServices)
	stay("while uvs runs")
	b.talk(t).intoTheLane(t, d)
	d.process.Stop()
	stay("after its end")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	if err := d.process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-d.process.Exited()
	stay("after its death")

	if err := b.director.Do(func() error {
		attrs.Priority = 9740
		return netlink.FilterAdd(&netlink.BpfFilter{FilterAttrs: attrs, Fd: theirs.FD(), Name: "uvs_lane", DirectAction: true})
	}); err != nil {
		t.Fatal(err)
	}
	if names := filterNames(t, b.director, index); len(names) != 2 {
		t.Fatalf("the filters are %v", names)
	}
	if err := d.configure(strings.ReplaceAll(laneServices, "offload: required", "offload: off")); err != nil {
		t.Fatal(err)
	}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	stay("after a start without the lane")
	d.logged(t, "removed the fast lane's filters")
}

// passing is a program that lets everything pass.
func passing(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

func mustInfo(t *testing.T, prog *ebpf.Program) *ebpf.ProgramInfo {
	t.Helper()
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// filterNames are those of the eBPF filters at a device's ingress.
func filterNames(t *testing.T, h *lab.Host, index int) (names []string) {
	t.Helper()
	dev, err := h.Netlink().LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	filters, err := h.Netlink().FilterList(dev, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok {
			names = append(names, b.Name)
		}
	}
	return names
}

// TestWithoutPermissionTheRoadCarriesAll: connections do not notice, and who
// asks is told what is missing. Who requires the lane is refused.
func TestWithoutPermissionTheRoadCarriesAll(t *testing.T) {
	need(t, "setpriv")
	b := newLaneBed(t)
	bin := filepath.Join(t.TempDir(), "uvs")
	script := fmt.Sprintf("#!/bin/sh\nexec setpriv --bounding-set -bpf,-sys_admin %s \"$@\"\n", uvsProgram(t))
	if err := os.WriteFile(bin, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	const cause = "missing capability BPF"
	d, err := newDirector(bin, t.TempDir(), b.director, laneServices)
	if err == nil || !strings.Contains(err.Error(), "device.offload is required") || !strings.Contains(err.Error(), cause) {
		t.Fatalf("offload: required ended with %v", err)
	}
	if err := d.configure(strings.ReplaceAll(laneServices, "offload: required", "offload: auto")); err != nil {
		t.Fatal(err)
	}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	k := b.talk(t)
	k.say(t, 20)
	if list, n := flows(t, d, "--runs", "road"); n != 1 {
		t.Errorf("flows on the road: %v", list)
	}
	for _, command := range [][]string{{"status"}, {"explain", k.LocalAddr().String(), laneVIP + "/tcp"}} {
		if out := run(t, d.host, bin, append(command, "--socket", d.socket)...); !strings.Contains(out, cause) {
			t.Errorf("uvs %s does not say what is missing:\n%s", command[0], out)
		}
	}
	if n := strings.Count(d.process.Output(), cause); n != 1 {
		t.Errorf("the log says it %d times, want once:\n%s", n, d.process.Output())
	}
}
