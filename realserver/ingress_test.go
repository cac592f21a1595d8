package realserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/realserver"
)

// TestIngress sends a real server what the program at its ingress unpacks and
// what it has to leave to the sockets, and what neither may let in.
func TestIngress(t *testing.T) {
	const (
		client4, client6 = "192.0.2.2:4000", "[2001:db8::2]:4000"
		vip4, vip6       = "203.0.113.10:7", "[2001:db8:a::10]:7"
		dip4, rip4       = "10.0.0.1", "10.0.0.2"
		dip6, rip6       = "fd00::1", "fd00::2"
		stranger         = "10.0.0.9"
	)
	h, director := newHosts(t)
	h.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	decap, err := setup(t, h, realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10", "2001:db8:a::10"),
		Tunnels: []packet.EncapKind{packet.IPIP, packet.GUE, packet.GRE}, Decap: realserver.DecapBPF, Directors: addrs(dip4, dip6)})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("the program needs Linux 6.6: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- decap.Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	servers := map[string]func(want string){}
	for vip, client := range map[string]string{vip4: client4, vip6: client6} {
		server, err := h.ListenPacket("udp", vip)
		if err != nil {
			t.Fatal(err)
		}
		servers[vip] = func(want string) { t.Helper(); expect(t, server, client, want) }
	}
	inner := func(client, vip, data string, options ...pt.Option) []byte {
		return pt.UDP(client, vip, append(options, pt.Data(data))...)
	}

	kinds := map[string]packet.EncapKind{"ipip": packet.IPIP, "gue": packet.GUE, "gre": packet.GRE}
	for name, kind := range kinds {
		for _, outer := range [][2]string{{dip4, rip4}, {dip6, rip6}} {
			for vip, client := range map[string]string{vip4: client4, vip6: client6} {
				t.Run(fmt.Sprintf("%s to %s is unpacked for %s", name, outer[1], vip), func(t *testing.T) {
					before := decap.Stats()
					b := encapsulate(t, inner(client, vip, t.Name()), kind, outer[0], outer[1], false)
					sendRaw(t, director, b, outer[1])
					servers[vip](t.Name())
					now := decap.Stats()
					if n := now.IngressPackets - before.IngressPackets; n != 1 || now.Packets != before.Packets {
						t.Errorf("%d packets at the ingress and %d by sockets, want 1 and 0", n, now.Packets-before.Packets)
					}
				})
			}
		}
	}
	for _, tt := range []struct {
		name string
		b    []byte
		in   bool // the server gets it, by the sockets
	}{
		{"a stranger's packet", encapsulate(t, inner(client4, vip4, "x"), packet.IPIP, stranger, rip4, false), true},
		{"a congestion mark", congested(encapsulate(t, inner(client4, vip4, "x", pt.TOS(2)), packet.IPIP, dip4, rip4, false)), true},
		{"a checksum of GUE", encapsulate(t, inner(client4, vip4, "x"), packet.GUE, dip4, rip4, true), true},
		{"what is not for a VIP", encapsulate(t, inner(client4, "203.0.113.99:7", "x"), packet.IPIP, dip4, rip4, false), false},
		{"what claims to come from a VIP", encapsulate(t, inner("203.0.113.10:4000", vip4, "x"), packet.IPIP, dip4, rip4, false), false},
	} {
		t.Run(tt.name+" is left to the sockets", func(t *testing.T) {
			before := decap.Stats()
			sendRaw(t, director, tt.b, rip4)
			if tt.in {
				servers[vip4]("x")
			}
			// What comes after it is there when it has been dropped.
			sendRaw(t, director, encapsulate(t, inner(client4, vip4, "next"), packet.IPIP, stranger, rip4, false), rip4)
			servers[vip4]("next")
			now := decap.Stats()
			if n := now.Packets - before.Packets; n != 2 || now.IngressPackets != before.IngressPackets {
				t.Errorf("%d packets by sockets and %d at the ingress, want 2 and 0", n, now.IngressPackets-before.IngressPackets)
			}
		})
	}
	cancel()
	if err := errors.Join(<-ended, decap.Close()); err != nil {
		t.Error(err)
	}
}

// congested sets the congestion mark in the outer IPv4 header alone.
func congested(b []byte) []byte {
	b[1] |= 3
	return pt.Mend(b)
}
