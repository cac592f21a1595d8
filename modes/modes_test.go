package modes_test

import (
	"net/netip"
	"testing"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
)

var (
	vip4, vip6 = netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:a::10")
	dip4, dip6 = netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8:d::11")

	web4      = lb.Listen{VIP: vip4, FirstPort: 80, Proto: packet.TCP}
	web6      = lb.Listen{VIP: vip6, FirstPort: 80, Proto: packet.TCP}
	manyPorts = lb.Listen{VIP: vip4, FirstPort: 8000, LastPort: 8010, Proto: packet.TCP}
	allPorts  = lb.Listen{VIP: vip4, Proto: packet.TCP}
)

func TestNew(t *testing.T) {
	listens := func(l ...lb.Listen) []lb.Listen { return l }
	pool4 := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/29")}
	tests := []struct {
		name string
		mode string
		rs   string
		o    modes.Options
		want string // the error, "" for none
	}{
		{name: "dr keeps the port", mode: "dr", rs: "10.0.0.3:8080", o: modes.Options{Listens: listens(web4)},
			want: "real server 10.0.0.3:8080: dr keeps port 80"},
		{name: "dr keeps a range of ports", mode: "dr", rs: "10.0.0.3:8000", o: modes.Options{Listens: listens(manyPorts)},
			want: "real server 10.0.0.3:8000: dr keeps ports 8000-8010"},
		{name: "dr keeps every port", mode: "dr", rs: "10.0.0.3:80", o: modes.Options{Listens: listens(allPorts)},
			want: "real server 10.0.0.3:80: dr keeps every port"},
		{name: "dr with the service's port", mode: "dr", rs: "10.0.0.3:80", o: modes.Options{Listens: listens(web4)}},
		{name: "dr without a port", mode: "dr", rs: "10.0.0.3:0", o: modes.Options{Listens: listens(web4, manyPorts, allPorts)}},
		{name: "dr does not cross families", mode: "dr", rs: "[2001:db8::3]:80", o: modes.Options{Listens: listens(web4)},
			want: "real server [2001:db8::3]:80: dr cannot carry packets to the other address family, and no listen is of its own"},
		{name: "dr minds the listens of its family only", mode: "dr", rs: "10.0.0.3:8000",
			o: modes.Options{Listens: listens(web6, lb.Listen{VIP: vip4, FirstPort: 8000, Proto: packet.TCP})}},
		{name: "nat maps ports", mode: "nat", rs: "10.0.0.3:8080", o: modes.Options{Listens: listens(web4, manyPorts, allPorts)}},
		{name: "nat does not cross families", mode: "nat", rs: "10.0.0.3:80", o: modes.Options{Listens: listens(web6)},
			want: "real server 10.0.0.3:80: nat cannot carry packets to the other address family, and no listen is of its own"},
		{name: "tun keeps the port", mode: "tun", rs: "10.0.0.3:8080", o: modes.Options{Listens: listens(web4), Tunnel: modes.Tunnel{Source: dip4}},
			want: "real server 10.0.0.3:8080: tun keeps port 80"},
		{name: "tun crosses families", mode: "tun", rs: "[2001:db8::3]:80", o: modes.Options{Listens: listens(web4), Tunnel: modes.Tunnel{Source: dip6}}},
		{name: "tun needs a source", mode: "tun", rs: "10.0.0.3:80", o: modes.Options{Listens: listens(web4)},
			want: "real server 10.0.0.3:80: tun has no source address for its tunnel"},
		{name: "tun needs a source of the real server's family", mode: "tun", rs: "10.0.0.3:80", o: modes.Options{Listens: listens(web4), Tunnel: modes.Tunnel{Source: dip6}},
			want: "real server 10.0.0.3:80: tun cannot send from 2001:db8:d::11 to the other address family"},
		{name: "ipip has no checksum", mode: "tun", rs: "10.0.0.3:80", o: modes.Options{Tunnel: modes.Tunnel{Source: dip4, Checksum: true}},
			want: "real server 10.0.0.3:80: an ipip tunnel has no checksum"},
		{name: "gre has no port", mode: "tun", rs: "10.0.0.3:80", o: modes.Options{Tunnel: modes.Tunnel{Source: dip4, Kind: packet.GRE, Port: 5}},
			want: "real server 10.0.0.3:80: only a gue tunnel has a port"},
		{name: "fullnat crosses families", mode: "fullnat", rs: "10.0.0.3:8080", o: modes.Options{Listens: listens(web4, web6), Locals: pool4}},
		{name: "fullnat needs a pool of the real server's family", mode: "fullnat", rs: "[2001:db8::3]:80", o: modes.Options{Listens: listens(web6), Locals: pool4},
			want: "real server [2001:db8::3]:80: fullnat's pool has no IPv6 address"},
		{name: "a name is wrong", mode: "snat", rs: "10.0.0.3:80", want: `mode "snat": none of dr, fullnat, nat, tun`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.RealServer = netip.MustParseAddrPort(tt.rs)
			m, err := modes.New(tt.mode, tt.o)
			if tt.want != "" {
				if err == nil || err.Error() != tt.want {
					t.Errorf("error %v, want %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.String() != tt.mode {
				t.Errorf("mode %v, want %s", m, tt.mode)
			}
		})
	}
}

// flowTo is a flow of client port to a real server.
func flowTo(rs string, port uint16) lb.Flow {
	f := lb.Flow{Server: &lb.RealServer{Endpoint: packet.EndpointFrom(netip.MustParseAddrPort(rs))}}
	f.Tuple = packet.Tuple{SrcPort: port, DstPort: 80, Proto: packet.TCP, Family: packet.IPv4}
	f.Tuple.Src, _ = packet.AddrFrom(netip.MustParseAddr("198.51.100.7"))
	f.Tuple.Dst, _ = packet.AddrFrom(vip4)
	return f
}

func TestFullNATProposals(t *testing.T) {
	for _, tt := range []struct {
		rs   string
		pool []string
		want int // addresses
	}{
		{"10.0.0.3:80", []string{"198.51.100.0/29", "2001:db8:f::/124", "192.0.2.200/32"}, 9},
		{"[2001:db8::3]:80", []string{"198.51.100.0/29", "2001:db8:f::/124"}, 16},
		{"10.0.0.3:80", []string{"198.51.100.9/29"}, 8},
		{"[2001:db8::3]:80", []string{"2001:db8:f::/64", "2001:db8:e::/124"}, 1 << 16},
		{"10.0.0.3:80", []string{"10.1.255.0/23"}, 512},
	} {
		var o modes.Options
		for _, p := range tt.pool {
			o.Locals = append(o.Locals, netip.MustParsePrefix(p))
		}
		o.RealServer = netip.MustParseAddrPort(tt.rs)
		m, err := modes.New("fullnat", o)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[netip.Addr]bool{}
		for port := range uint16(40_000) {
			f := flowTo(tt.rs, port)
			tries := map[packet.Endpoint]bool{}
			for try := 0; ; try++ {
				var ok bool
				if f.Local, ok = m.Local(f, try); !ok {
					break
				}
				var rw packet.Rewrite
				m.Rewrite(&f, lb.Request, &rw)
				local := rw.Src
				a := local.AddrPort()
				if !within(o.Locals, a.Addr()) || a.Port() < 1024 || a.Addr().Is4() != o.RealServer.Addr().Is4() {
					t.Fatalf("pool %v: proposal %v", tt.pool, a)
				}
				seen[a.Addr()] = true
				tries[local] = true
				if reply, ok := m.ReplyTuple(f); !ok || reply.Dst != local.Addr || reply.DstPort != local.Port {
					t.Fatalf("reply tuple %v to %v", reply, a)
				}
				if port > 16 && try == 3 {
					break // the others need not try as long
				}
			}
			if len(tries) < 4 {
				t.Fatalf("pool %v: only %d different proposals", tt.pool, len(tries))
			}
		}
		if len(seen) < tt.want*6/10 || len(seen) > tt.want {
			t.Errorf("pool %v: %d addresses proposed, want about all %d", tt.pool, len(seen), tt.want)
		}
	}
}

func within(pool []netip.Prefix, a netip.Addr) bool {
	for _, p := range pool {
		if p.Masked().Contains(a) {
			return true
		}
	}
	return false
}

// TestFullNATUsesEveryPort: one LIP carries as many flows to one real server as
// there are ports from 1024 on, nearly.
func TestFullNATUsesEveryPort(t *testing.T) {
	o := modes.Options{
		RealServer: netip.MustParseAddrPort("10.0.0.3:80"),
		Locals:     []netip.Prefix{netip.MustParsePrefix("192.0.2.200/32")},
	}
	m, err := modes.New("fullnat", o)
	if err != nil {
		t.Fatal(err)
	}
	taken := map[uint32]bool{}
	refused := 0
	const flows = 60_000 // of 64512
	for port := range uint16(flows) {
		f := flowTo("10.0.0.3:80", port)
		ok := true
		for try := 0; ok; try++ {
			if f.Local, ok = m.Local(f, try); ok && !taken[f.Local] {
				taken[f.Local] = true
				break
			}
		}
		if !ok {
			refused++
		}
	}
	if refused > flows/1000 {
		t.Errorf("%d of %d flows found no port", refused, flows)
	}
}
