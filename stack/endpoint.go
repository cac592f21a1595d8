package stack

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/uvs-project/uvs/packet"
)

// vipMTU is the MTU of the netstack, in bytes: what the Internet carries
// without a tunnel. The segments of its super-packets fit it.
const vipMTU = 1500

// An endpoint is the netstack's link: packets come from the loops by deliver,
// and what the netstack sends is written to the TUN device, where the kernel
// routes it.
//
// It asks for checksum offload on the way in, because the loops verify. On the
// way out the netstack computes checksums itself, except in TCP segments that
// the host is to split (HostGSO): those come with the pseudo-header's sum, as
// a virtio-net header wants it.
type endpoint struct {
	queues  []Queue
	buffers sync.Pool // of *[]byte, each with room for a virtio-net header and a packet

	mtu        atomic.Uint32
	dispatcher atomic.Pointer[stack.NetworkDispatcher] // nil while not attached

	mu      sync.Mutex
	onClose func() // guarded by mu
}

var (
	_ stack.LinkEndpoint = (*endpoint)(nil)
	_ stack.GSOEndpoint  = (*endpoint)(nil)
)

func newEndpoint(queues []Queue) *endpoint {
	e := &endpoint{queues: queues}
	e.mtu.Store(vipMTU)
	e.buffers.New = func() any {
		b := make([]byte, packet.VNetLen+packet.MaxSize)
		return &b
	}
	return e
}

// deliver gives the netstack a copy of an IP packet, and runs it as far as it
// goes without waiting. Loops call it at the same time.
func (e *endpoint) deliver(ip []byte) {
	d := e.dispatcher.Load()
	if d == nil {
		return
	}
	proto := header.IPv4ProtocolNumber
	if ip[0]>>4 == packet.IPv6 {
		proto = header.IPv6ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
	(*d).DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

// WritePackets implements stack.LinkWriter.
func (e *endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if !e.write(pkt) {
			return i, &tcpip.ErrNoBufferSpace{}
		}
	}
	return pkts.Len(), nil
}

// write writes one packet and says whether the kernel took it. The packets of
// a flow go through one queue, so they keep their order.
func (e *endpoint) write(pkt *stack.PacketBuffer) bool {
	bp := e.buffers.Get().(*[]byte)
	defer e.buffers.Put(bp)
	b := *bp
	if pkt.Size() > len(b)-packet.VNetLen {
		return false
	}
	putGSO(b[:packet.VNetLen], pkt)
	n := packet.VNetLen
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		s := v.AsSlice()
		cut := min(skip, len(s))
		skip -= cut
		n += copy(b[n:], s[cut:])
	}
	return e.queues[int(pkt.Hash)%len(e.queues)].Write(b[:n]) == nil
}

// putGSO writes the virtio-net header of a packet of the netstack. It is not
// packet.PutVNet, as nobody has parsed the packet: the netstack says itself
// how it is built.
func putGSO(h []byte, pkt *stack.PacketBuffer) {
	clear(h)
	g := &pkt.GSOOptions
	if g.Type != stack.GSOTCPv4 && g.Type != stack.GSOTCPv6 || !g.NeedsCsum {
		return
	}
	h[0] = packet.VNetNeedsCsum
	binary.NativeEndian.PutUint16(h[6:], g.L3HdrLen)
	binary.NativeEndian.PutUint16(h[8:], g.CsumOffset)
	if pkt.Data().Size() <= int(g.MSS) {
		return
	}
	h[1] = packet.GSOTCPv4
	if g.Type == stack.GSOTCPv6 {
		h[1] = packet.GSOTCPv6
	}
	binary.NativeEndian.PutUint16(h[2:], uint16(pkt.HeaderSize()))
	binary.NativeEndian.PutUint16(h[4:], g.MSS)
}

// Attach implements stack.LinkEndpoint.
func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.dispatcher.Store(nil)
		return
	}
	e.dispatcher.Store(&d)
}

// IsAttached implements stack.LinkEndpoint.
func (e *endpoint) IsAttached() bool { return e.dispatcher.Load() != nil }

// Close implements stack.LinkEndpoint.
func (e *endpoint) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.onClose != nil {
		e.onClose()
		e.onClose = nil
	}
}

// SetOnCloseAction implements stack.LinkEndpoint.
func (e *endpoint) SetOnCloseAction(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onClose = f
}

// MTU implements stack.LinkEndpoint.
func (e *endpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.LinkEndpoint.
func (e *endpoint) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// Capabilities implements stack.LinkEndpoint.
func (*endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// GSOMaxSize implements stack.GSOEndpoint.
func (*endpoint) GSOMaxSize() uint32 { return 65535 }

// SupportedGSO implements stack.GSOEndpoint.
func (*endpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// A TUN device has no link header and no address; the endpoint has no
// goroutine.

// MaxHeaderLength implements stack.LinkEndpoint.
func (*endpoint) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.LinkEndpoint.
func (*endpoint) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.LinkEndpoint.
func (*endpoint) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements stack.LinkEndpoint.
func (*endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.LinkEndpoint.
func (*endpoint) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.LinkEndpoint.
func (*endpoint) ParseHeader(*stack.PacketBuffer) bool { return true }

// Wait implements stack.LinkEndpoint.
func (*endpoint) Wait() {}
