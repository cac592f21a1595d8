package stack

import (
	"errors"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/uvs-project/uvs/packet"
)

// vipNIC is the netstack's only interface.
const vipNIC tcpip.NICID = 1

// A netstack is the TCP/IP stack that owns the VIPs. It answers what the
// balancer passes up: pings, and ports that no service has, by a TCP reset or
// an ICMP port unreachable; of ICMP errors it sends at most 1000 a second, in
// bursts of 50, as Linux does.
//
// HandleLocal stays off: a VIP's packets come from the link even where their
// source is another VIP. There are no iptables: any rule would turn on
// connection tracking for good.
type netstack struct {
	stack *stack.Stack
	link  *endpoint
}

func newNetstack(queues []Queue) (*netstack, error) {
	n := &netstack{link: newEndpoint(queues)}
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := n.stack.CreateNIC(vipNIC, n.link); err != nil {
		n.close()
		return nil, fmt.Errorf("netstack: create interface: %v", err)
	}
	n.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: vipNIC},
		{Destination: header.IPv6EmptySubnet, NIC: vipNIC},
	})
	return n, nil
}

// setVIPs makes vips the netstack's addresses, no more and no less.
// Connections to an address that stays are not touched.
func (n *netstack) setVIPs(vips []netip.Addr) error {
	want := make(map[tcpip.Address]bool, len(vips))
	for _, vip := range vips {
		want[tcpip.AddrFromSlice(vip.AsSlice())] = true
	}
	var errs []error
	for _, a := range n.stack.AllAddresses()[vipNIC] {
		addr := a.AddressWithPrefix.Address
		if want[addr] {
			delete(want, addr)
			continue
		}
		if err := n.stack.RemoveAddress(vipNIC, addr); err != nil {
			errs = append(errs, fmt.Errorf("netstack: remove %v: %v", addr, err))
		}
	}
	for addr := range want {
		a := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: addr.WithPrefix()}
		if addr.Len() == header.IPv6AddressSize {
			a.Protocol = ipv6.ProtocolNumber
		}
		if err := n.stack.AddProtocolAddress(vipNIC, a, stack.AddressProperties{}); err != nil {
			errs = append(errs, fmt.Errorf("netstack: add %v: %v", addr, err))
		}
	}
	return errors.Join(errs...)
}

// close ends the netstack and all its goroutines.
func (n *netstack) close() { n.stack.Destroy() }

// up gives p to the netstack. The netstack trusts every checksum, so those
// that the kernel did not vouch for are verified here. It takes a TCP
// super-packet as it is, but knows no UDP one: that is split first.
func (l *loop) up(p *packet.Packet) {
	if !p.TransportChecksumOK() {
		l.count.drop(packet.BadChecksum)
		return
	}
	l.tally.passed++
	if p.VNet.GSOType&^packet.GSOECN != packet.GSOUDP {
		l.road.netstack.link.deliver(p.Bytes())
		return
	}
	l.egress.splitter.Start(p)
	size := packet.Headroom + p.SegmentLen()
	if l.egress.used+size > len(l.egress.room) {
		l.egress.flush()
	}
	l.egress.segment.Reset(l.egress.room[l.egress.used:l.egress.used+size], packet.Headroom, packet.Headroom)
	for l.egress.splitter.Next(&l.egress.segment) {
		l.road.netstack.link.deliver(l.egress.segment.Bytes())
	}
}
