package lb

import (
	"encoding/binary"
	"testing"

	"github.com/uvs-project/uvs/packet"
)

// fakeMode stands in for the modes of package modes, which this package cannot
// import: replies come back to the client's address and port, or, with locals,
// to one of as many ports, or not at all.
type fakeMode struct {
	direct bool
	locals int
}

func (m fakeMode) String() string { return "fake" }
func (m fakeMode) Crosses() bool  { return true }

func (m fakeMode) Local(f Flow, try int) (uint32, bool) {
	if m.locals == 0 {
		return 0, try == 0
	}
	return uint32((int(f.Tuple.SrcPort) + try) % m.locals), try < m.locals
}

func (m fakeMode) ReplyTuple(f Flow) (packet.Tuple, bool) {
	t := f.Tuple.Reverse()
	t.Src, t.SrcPort = f.Server.Endpoint.Addr, f.Server.Endpoint.Port
	if m.locals > 0 {
		t.Dst, t.DstPort = packet.Addr{0: 99}, uint16(f.Local)
	}
	return t, !m.direct
}

func (m fakeMode) Rewrite(*Flow, Direction, *packet.Rewrite) {}

// newTestTable is a table with real servers of the modes, whose ids are their
// indexes.
func newTestTable(tb testing.TB, limit int, modes ...Mode) (*Table, []*RealServer) {
	tb.Helper()
	servers := newRegistry()
	s := &service{lifetimes: Timeouts{}.lifetimes(), policy: DefaultPolicy()}
	var set []*RealServer
	for i, m := range modes {
		rs := &RealServer{
			Endpoint: packet.Endpoint{Addr: packet.Addr{10, 0, 0, byte(i + 1)}, Port: 8080, Family: packet.IPv4},
			Mode:     m,
			Weight:   1,
			service:  s,
			record:   &record{id: uint32(i)},
			load:     new(load),
		}
		_, replies := m.ReplyTuple(Flow{Server: rs})
		rs.oneSided = !replies
		set = append(set, rs)
	}
	servers.byID.Store(&set)
	t, err := newTable(limit, servers)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(t.close)
	return t, set
}

// clientTuple is the tuple of client i's request; every third one is IPv6.
func clientTuple(i uint32, proto uint8) packet.Tuple {
	t := packet.Tuple{SrcPort: uint16(i*7 + i>>16), DstPort: 80, Proto: proto, Family: packet.IPv4}
	t.Dst = packet.Addr{203, 0, 113, 10}
	binary.BigEndian.PutUint32(t.Src[:], 0x64000000+i)
	if i%3 == 0 {
		t.Family = packet.IPv6
		binary.BigEndian.PutUint32(t.Src[12:], i)
		t.Dst[15] = 1
	}
	return t
}

// add inserts a flow of rs as the first packet of client i would.
func (t *Table) add(rs *RealServer, key packet.Tuple, state State, now uint32) (Flow, packet.Reason) {
	if !rs.acquire() {
		panic("freed")
	}
	f := Flow{Tuple: key, Server: rs, State: state}
	if why := t.insert(&f, 0, 0, key.Hash(t.seed), now); why != packet.OK {
		return Flow{}, why
	}
	return f, packet.OK
}

// find looks key up with an event.
func (t *Table) find(key packet.Tuple, e event, anew bool, now uint32) (f Flow, d Direction, ok bool) {
	d, o := t.lookup(&key, key.Hash(t.seed), e, anew, now, &f, nil)
	if o != known {
		return Flow{}, 0, false
	}
	return f, d, true
}
