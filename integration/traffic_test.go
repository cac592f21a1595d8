package integration

// Every mode in every family carries what real programs send, each mode on a
// VIP of its own in the topology of bed_test.go, all at the same time in one
// director.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// A target is a variant in a bed.
type target struct {
	*bed
	variant
}

// url of the variant's VIP.
func (x *target) url(path string) string { return "http://" + literal(x.vip) + path }

// cases are what each variant is put through.
var cases = []struct {
	name string
	run  func(*testing.T, *target)
}{
	{"a file comes down whole", download},
	{"a file goes up whole", upload},
	{"requests are spread over both real servers, which see the client as the mode says", spread},
	{"a port is mapped", mapped},
	{"four streams go up", func(t *testing.T, x *target) { iperf3(t, x, "-P", "4") }},
	{"a stream comes down", func(t *testing.T, x *target) { iperf3(t, x, "-R") }},
	{"DNS over UDP", func(t *testing.T, x *target) { dig(t, x, "who.test", "+notcp", x.group(), "(UDP)") }},
	{"DNS over TCP", func(t *testing.T, x *target) { dig(t, x, "who.test", "+tcp", x.group(), "(TCP)") }},
	{"DNS answer over UDP that is fragmented", func(t *testing.T, x *target) {
		dig(t, x, "big.test", "+notcp", strings.Repeat("l", 250), "(UDP)")
	}},
	{"socat over TCP", func(t *testing.T, x *target) { socat(t, x, "TCP") }},
	{"socat over UDP", func(t *testing.T, x *target) { socat(t, x, "UDP") }},
	{"datagrams that are fragmented both ways", fragments},
	{"ping to the VIP", ping},
	{"a TCP port without a service is refused", refusedTCP},
	{"a UDP port without a service is unreachable", refusedUDP},
}

// programs are what the cases need.
var programs = []string{"nginx", "named", "iperf3", "socat", "curl", "dig", "ping", "ip"}

// The beds that several tests share, each with a director in all variants:
// one as the machine makes it, where the kernel also unpacks tunnels at the
// real servers' ingress; one whose director lets every packet cross the TUN
// device; and one likewise with all offloads off, so that each packet on
// the wire is one of at most 1500 bytes with a complete checksum.
var (
	sharedBed = sync.OnceValues(func() (*bed, error) { return shareBed("shared", true, "", atIngress...) })
	onlyRoad  = sync.OnceValues(func() (*bed, error) { return shareBed("road", true, noLane) })
	plainWire = sync.OnceValues(func() (*bed, error) { return shareBed("plain", false, noLane) })

	sharedLabs []*lab.Lab
)

func closeShared() {
	for _, l := range sharedLabs {
		l.Close()
	}
}

// noLane is the part of a configuration that keeps packets off the fast lane.
const noLane = "device: {offload: off}\n"

// atIngress has a real server's kernel unpack what the director of a bed sends.
var atIngress = []string{"--decap", "bpf", "--director", "192.0.2.11", "--director", "2001:db8:1::11"}

func shareBed(name string, offloads bool, device string, unpack ...string) (*bed, error) {
	l, err := lab.New("uvstest")
	if err != nil {
		return nil, err
	}
	sharedLabs = append(sharedLabs, l)
	bin, err := buildOnce()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(scratch, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b := newBed(l, variants)
	b.unpack = unpack
	if !offloads {
		b.offloadsOff()
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	if err := b.ownVIPs(bin, variants); err != nil {
		return nil, err
	}
	if err := b.serve(variants); err != nil {
		return nil, err
	}
	b.uvs, err = newDirector(bin, dir, b.director, device+settings+services(variants))
	return b, err
}

// services is the part of the configuration that lists them.
func services(list []variant) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range list {
		b.WriteString(list[i].service())
	}
	return b.String()
}

func TestTraffic(t *testing.T) {
	need(t, programs...)
	b, err := sharedBed()
	if err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, variants)
}

// TestTrafficOnTheTUNRoad is TestTraffic where the fast lane is not allowed.
func TestTrafficOnTheTUNRoad(t *testing.T) {
	need(t, programs...)
	b, err := onlyRoad()
	if err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, variants)
}

// TestTrafficWithoutOffloads is TestTraffic as on the plainest of network cards.
func TestTrafficWithoutOffloads(t *testing.T) {
	need(t, programs...)
	b, err := plainWire()
	if err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, variants)
}

func everyCase(t *testing.T, b *bed, list []variant) {
	for i := range list {
		t.Run(list[i].name, func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.run(t, &target{b, list[i]}) })
			}
			if t.Failed() && b.uvs != nil {
				t.Logf("uvs said:\n%s", b.uvs.process.Output())
			}
		})
	}
}

// TestControl puts nftables in the director's place: what it passes is sound
// as a test of uvs.
func TestControl(t *testing.T) {
	need(t, append(programs, "nft")...)
	var nat []variant
	var rules strings.Builder
	rules.WriteString("table inet control { chain prerouting { type nat hook prerouting priority dstnat;\n")
	for _, v := range variants {
		if v.mode != "nat" {
			continue
		}
		nat = append(nat, v)
		family := "ip"
		if v.rs6 {
			family = "ip6"
		}
		match := fmt.Sprintf("%s daddr %s", family, v.vip)
		fmt.Fprintf(&rules, "%s tcp dport 8080 dnat to %s:80\n", match, literal(v.rip(1)))
		fmt.Fprintf(&rules, "%s meta l4proto { icmp, icmpv6 } dnat to %s\n", match, v.rip(1))
		fmt.Fprintf(&rules, "%s tcp dport 5201 dnat to %s\n", match, v.rip(1))
		fmt.Fprintf(&rules, "%s dnat to numgen inc mod 2 map { 0: %s, 1: %s }\n", match, v.rip(1), v.rip(2))
	}
	rules.WriteString("}\n}\n")
	b := newBed(newLab(t), nat)
	drawn(t, b.lab)
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, b.director, "nft", "-f", file)
	if err := b.serve(nat); err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, nat)
}
