package integration

// What a packet looks like at each place of its road, in the topology of
// bed_test.go with all offloads off, so that every checksum on the wire is
// complete. Each payload is a token of its own, by which a packet is known
// whatever the headers around it:
//
//	client ──1──► router ──► director ──2──► real server
//	client ◄──4── router ◄── director ◄──3── real server     nat, fullnat
//	client ◄──4── router ◄───────────────3── real server     dr, tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/integration/lab"
)

// A wire is an IP packet as it was on a wire.
type wire struct {
	src, dst netip.Addr
	proto    uint8
	ttl      uint8
	raw, l4  []byte
}

// readWire decodes a packet that has no extension headers.
func readWire(t *testing.T, raw []byte) wire {
	t.Helper()
	if len(raw) < 40 {
		t.Fatalf("packet of %d bytes", len(raw))
	}
	if raw[0]>>4 == 6 {
		end := 40 + int(binary.BigEndian.Uint16(raw[4:]))
		return wire{
			src: netip.AddrFrom16([16]byte(raw[8:24])), dst: netip.AddrFrom16([16]byte(raw[24:40])),
			proto: raw[6], ttl: raw[7], raw: raw[:end], l4: raw[40:end],
		}
	}
	head, end := int(raw[0]&15)*4, int(binary.BigEndian.Uint16(raw[2:]))
	return wire{
		src: netip.AddrFrom4([4]byte(raw[12:16])), dst: netip.AddrFrom4([4]byte(raw[16:20])),
		proto: raw[9], ttl: raw[8], raw: raw[:end], l4: raw[head:end],
	}
}

func (w *wire) ports() (src, dst uint16) {
	return binary.BigEndian.Uint16(w.l4), binary.BigEndian.Uint16(w.l4[2:])
}

// sum is the ones' complement sum of RFC 1071, 0xffff over anything with a true checksum.
func sum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			s += uint32(b[i]) << 8
			if i+1 < len(b) {
				s += uint32(b[i+1])
			}
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// checkSums fails the test where a checksum of the packet is not true.
func (w *wire) checkSums(t *testing.T, where string) {
	t.Helper()
	if w.src.Is4() && sum(w.raw[:len(w.raw)-len(w.l4)]) != 0xffff {
		t.Errorf("%s: wrong IPv4 header checksum", where)
	}
	if w.proto != protoTCP && w.proto != protoUDP {
		return
	}
	if w.proto == protoUDP && binary.BigEndian.Uint16(w.l4[6:]) == 0 {
		if _, port := w.ports(); w.src.Is6() && port != gue {
			t.Errorf("%s: UDP over IPv6 without a checksum", where)
		}
		return // IPv4 may do without, and a tunnel over IPv6 (RFC 6935)
	}
	pseudo := binary.BigEndian.AppendUint16([]byte{0, w.proto}, uint16(len(w.l4)))
	if sum(w.src.AsSlice(), w.dst.AsSlice(), pseudo, w.l4) != 0xffff {
		t.Errorf("%s: wrong transport checksum", where)
	}
}

const (
	protoIPv4 = 4
	protoTCP  = 6
	protoUDP  = 17
	protoIPv6 = 41
	protoGRE  = 47

	gue = 6080 // UDP port
)

// hop is the packet as a router hands it on: one less to live.
func (w *wire) hop() []byte {
	b := slices.Clone(w.raw)
	if w.src.Is6() {
		b[7]--
		return b
	}
	b[8]--
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^sum(b[:len(w.raw)-len(w.l4)]))
	return b
}

// neutral is the packet without what an address translation changes.
func (w *wire) neutral() []byte {
	b := slices.Clone(w.raw)
	l4 := b[len(w.raw)-len(w.l4):]
	if w.src.Is6() {
		clear(b[7:40])
	} else {
		clear(b[8:9])
		clear(b[10:20])
	}
	clear(l4[:4])
	if w.proto == protoTCP {
		clear(l4[16:18])
	} else {
		clear(l4[6:8])
	}
	return b
}

// unwrap is the inner packet of a tunnel packet.
func (w *wire) unwrap(t *testing.T, kind string) wire {
	t.Helper()
	inner := w.l4
	var next uint8 // the protocol number of what is inside
	switch {
	case kind == "ipip" && (w.proto == protoIPv4 || w.proto == protoIPv6):
		next = w.proto
	case kind == "gre" && w.proto == protoGRE && bytes.Equal(inner[:2], []byte{0, 0}):
		next = map[uint16]uint8{0x0800: protoIPv4, 0x86dd: protoIPv6}[binary.BigEndian.Uint16(inner[2:])]
		inner = inner[4:]
	case kind == "gue" && w.proto == protoUDP:
		if _, port := w.ports(); port != gue {
			t.Errorf("GUE to port %d, want %d", port, gue)
		}
		head := inner[8:12]
		if head[0] != 0 || head[2] != 0 || head[3] != 0 {
			t.Errorf("GUE header % x: want version 0, data, no flags", head)
		}
		next, inner = head[1], inner[12:]
	default:
		t.Fatalf("protocol %d is not %s", w.proto, kind)
	}
	p := readWire(t, inner)
	if want := map[bool]uint8{false: protoIPv4, true: protoIPv6}[p.src.Is6()]; next != want {
		t.Errorf("%s says %d follows, want %d", kind, next, want)
	}
	return p
}

func TestHeaders(t *testing.T) {
	need(t, programs...)
	b, err := plainWire()
	if err != nil {
		t.Fatal(err)
	}
	for i := range variants {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(variants[i].name+" "+network, func(t *testing.T) {
				checkHeaders(t, &target{b, variants[i]}, network)
			})
		}
	}
}

// A place is an interface of a host.
type place struct {
	host *lab.Host
	dev  string
}

// crossed is what a capture saw of the token.
type crossed struct{ in, out []lab.Frame }

func checkHeaders(t *testing.T, x *target, network string) {
	token := fmt.Sprintf("token of %s by %s", x.variant.name, network)
	group := x.groups[x.group()]
	places := []place{{x.client, "router"}, {x.director, "lan"}, {group[0], "lan"}, {group[1], "lan"}}
	var captures []*lab.Capture
	for _, p := range places {
		c, err := p.host.Capture(p.dev, func(f *lab.Frame) bool { return bytes.Contains(f.Data, []byte(token)) })
		if err != nil {
			t.Fatal(err)
		}
		captures = append(captures, c)
	}
	conn, err := x.client.Dial(within(t), network, netip.AddrPortFrom(x.vip, echoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	local := conn.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, token); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(token))); err != nil {
		t.Fatal(err)
	}

	saw := make([]crossed, len(places))
	for i, c := range captures {
		for _, f := range c.Stop() {
			if f.Out {
				saw[i].out = append(saw[i].out, f)
			} else {
				saw[i].in = append(saw[i].in, f)
			}
		}
	}
	client, director := saw[0], saw[1]
	chosen := 1 // which real server got it
	if len(saw[3].in) > 0 {
		chosen = 2
	}
	rs := saw[1+chosen]
	through := 1 // directions that cross the director
	if x.mode == "nat" || x.mode == "fullnat" {
		through = 2
	}
	if n := len(saw[4-chosen].in); n > 0 {
		t.Errorf("%d packets at the other real server too", n)
	}
	got := fmt.Sprint(len(client.out), len(director.in), len(director.out), len(rs.in), len(rs.out), len(client.in))
	want := fmt.Sprint(1, through, through, 1, 1, 1)
	if got != want {
		t.Fatalf("packets at client out, director in, out, real server in, out, client in: %s, want %s", got, want)
	}

	ip := func(f lab.Frame, where string) wire {
		w := readWire(t, f.Data[14:])
		w.checkSums(t, where)
		return w
	}
	// 1 to 2: the request.
	sent, in, out := ip(client.out[0], "client"), ip(director.in[0], "director in"), ip(director.out[0], "director out")
	if sent.src != local.Addr() || sent.dst != x.vip {
		t.Errorf("client sent %v to %v", sent.src, sent.dst)
	}
	if diff := cmp.Diff(sent.hop(), in.raw); diff != "" {
		t.Errorf("the router changed more than the TTL:\n%s", diff)
	}
	arrived := ip(rs.in[0], "real server")
	if !bytes.Equal(arrived.raw, out.raw) {
		t.Error("the real server got something else than the director sent")
	}
	checkMAC(t, "to", director.out[0].Data[:6], group[chosen-1].MAC("lan"))
	checkMAC(t, "from", director.out[0].Data[6:12], x.director.MAC("lan"))
	rip := x.rip(chosen)
	var request wire // as the real server's program sees it
	switch x.mode {
	case "dr":
		request = out
	case "tun":
		dip := netip.MustParseAddr("192.0.2.11")
		if x.rs6 {
			dip = netip.MustParseAddr("2001:db8:1::11")
		}
		if out.src != dip || out.dst != rip {
			t.Errorf("outer header %v to %v, want %v to %v", out.src, out.dst, dip, rip)
		}
		request = out.unwrap(t, x.tunnel)
	default:
		request = out
		checkTranslated(t, "request", x, in, out, x.clientAddr(), rip)
	}
	if through == 1 {
		if diff := cmp.Diff(in.hop(), request.raw); diff != "" {
			t.Errorf("more than the TTL changed on the way to the real server:\n%s", diff)
		}
	}

	// 3 to 4: the reply.
	answer, back := ip(rs.out[0], "real server out"), ip(client.in[0], "client in")
	if back.src != x.vip || back.dst != local.Addr() {
		t.Errorf("client got a reply from %v to %v", back.src, back.dst)
	}
	if from, to := back.ports(); from != echoPort || to != local.Port() {
		t.Errorf("client got a reply from port %d to %d", from, to)
	}
	if answer.src != x.served(chosen) || answer.dst != request.src {
		t.Errorf("real server answered from %v to %v", answer.src, answer.dst)
	}
	if through == 1 {
		if diff := cmp.Diff(answer.hop(), back.raw); diff != "" {
			t.Errorf("the reply changed on its way by the router:\n%s", diff)
		}
		return
	}
	in, out = ip(director.in[1], "director in, reply"), ip(director.out[1], "director out, reply")
	if !bytes.Equal(in.raw, answer.raw) {
		t.Error("the director got another reply than the real server sent")
	}
	checkTranslated(t, "reply", x, in, out, x.vip, x.clientAddr())
	if diff := cmp.Diff(out.hop(), back.raw); diff != "" {
		t.Errorf("the router changed more than the reply's TTL:\n%s", diff)
	}
}

// checkTranslated compares what went into the director and what came out, of nat
// and fullnat. src is what the source is, unless fullnat puts an
// address of its pool there.
func checkTranslated(t *testing.T, what string, x *target, in, out wire, src, dst netip.Addr) {
	t.Helper()
	if out.dst != dst {
		t.Errorf("%s goes to %v, want %v", what, out.dst, dst)
	}
	if x.mode == "fullnat" && what == "request" {
		if !slices.ContainsFunc(strings.Fields(lips), func(p string) bool { return netip.MustParsePrefix(p).Contains(out.src) }) {
			t.Errorf("%s comes from %v, want an address of the pool", what, out.src)
		}
	} else if out.src != src {
		t.Errorf("%s comes from %v, want %v", what, out.src, src)
	}
	// The kernel takes one away on the way to uvs, and another if uvs has it
	// route the packet, as to a neighbour that is yet to be resolved.
	if out.ttl != in.ttl-1 && out.ttl != in.ttl-2 {
		t.Errorf("%s: TTL %d becomes %d, want one or two less", what, in.ttl, out.ttl)
	}
	if in.src.Is4() == out.src.Is4() {
		if diff := cmp.Diff(in.neutral(), out.neutral()); diff != "" {
			t.Errorf("%s: more than addresses, ports, TTL and checksums changed:\n%s", what, diff)
		}
		return
	}
	// Another family: the transport's part is the same but for ports and checksum.
	a, b := in.neutral(), out.neutral()
	if diff := cmp.Diff(a[len(a)-len(in.l4):], b[len(b)-len(out.l4):]); diff != "" {
		t.Errorf("%s: more than ports and checksum changed above the IP header:\n%s", what, diff)
	}
}

func checkMAC(t *testing.T, which string, got []byte, want net.HardwareAddr) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("frame %s %v, want %v", which, net.HardwareAddr(got), want)
	}
}
