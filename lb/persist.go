package lb

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A Persistence sends all flows of one client of a service to one real server,
// over all its listens, as IPVS does for the ports and protocols of a firewall
// mark (ip_vs_core.c ip_vs_sched_persist). A client is an address, a network of
// clients or, with an Engine, what the packet says it is.
//
// The choice is remembered by a template in the flow table, for Timeout after
// the client's last new flow and as long as it has flows. It binds also when
// the real server is at its upper threshold or has weight 0, but see
// Policy.ExpireQuiescedTemplates.
type Persistence struct {
	Timeout  time.Duration // 0: no persistence; counts for templates made from now on
	PrefixV4 int           // bits of a client's IPv4 address that tell it from others: 32 each, 0 nobody
	PrefixV6 int           // likewise, up to 128
	Engine   Engine
}

// An Engine finds the client in a packet's payload.
type Engine uint8

const (
	NoEngine  Engine = iota
	SIPEngine        // the Call-ID of SIP over UDP, together with the address; without one the packet is dropped

	numEngines
)

// maxPersistence is the longest Timeout that ipvsadm takes.
const maxPersistence = 31 * 24 * time.Hour

func (p *Persistence) check() error {
	switch {
	case p.Timeout < 0 || p.Timeout > maxPersistence:
		return fmt.Errorf("persistence: timeout %v is not within 0 and %v", p.Timeout, maxPersistence)
	case p.PrefixV4 < 0 || p.PrefixV4 > 32:
		return fmt.Errorf("persistence: IPv4 prefix %d is not within 0 and 32", p.PrefixV4)
	case p.PrefixV6 < 0 || p.PrefixV6 > 128:
		return fmt.Errorf("persistence: IPv6 prefix %d is not within 0 and 128", p.PrefixV6)
	case p.Engine >= numEngines:
		return fmt.Errorf("persistence: engine %d is not known", p.Engine)
	}
	return nil
}

// persistent is a service's Persistence as packets need it.
type persistent struct {
	Persistence
	service      uint32 // tells the templates of services apart, over reloads
	timeout      uint32 // ticks
	mask4, mask6 packet.Addr
}

// newPersistent is nil where a service has no persistence.
func newPersistent(p Persistence, service uint32) *persistent {
	if p.Timeout == 0 {
		return nil
	}
	return &persistent{
		Persistence: p,
		service:     service,
		timeout:     ticks(p.Timeout),
		mask4:       mask(p.PrefixV4),
		mask6:       mask(p.PrefixV6),
	}
}

// mask has its first bits set.
func mask(bits int) (m packet.Addr) {
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// callSeeds keep clients from choosing Call-IDs whose digests are equal.
var callSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// key is what a client's template is found by: no packet's tuple, since the
// protocol is 0. A Call-ID is in it as 96 bits of a seeded hash.
func (p *persistent) key(client *packet.Addr, family uint8, callID []byte) packet.Tuple {
	k := packet.Tuple{Family: family}
	m := &p.mask4
	if family == packet.IPv6 {
		m = &p.mask6
	}
	for i := range k.Src {
		k.Src[i] = client[i] & m[i]
	}
	binary.LittleEndian.PutUint32(k.Dst[0:], p.service)
	if p.Engine == SIPEngine {
		binary.LittleEndian.PutUint64(k.Dst[4:], maphash.Bytes(callSeeds[0], callID))
		binary.LittleEndian.PutUint32(k.Dst[12:], uint32(maphash.Bytes(callSeeds[1], callID)))
	}
	return k
}

// identify is the key of the client that p is a packet of; false: it does not
// say which.
func (p *persistent) identify(pkt *packet.Packet, client *packet.Addr) (k packet.Tuple, ok bool) {
	var callID []byte
	if p.Engine == SIPEngine {
		if pkt.IsICMPError() || pkt.Tuple.Proto != packet.UDP {
			return k, false
		}
		if callID = sipCallID(pkt.UDPPayload()); callID == nil {
			return k, false
		}
	}
	return p.key(client, pkt.Tuple.Family, callID), true
}

// A choice is the real server of a new flow. It is acquired for the flow, and
// the template, if there is one, counts the flow. Who opens no flow gives both
// back by Table.unchoose.
type choice struct {
	server   *RealServer
	template uint32 // entry; 0: none
}

// choose chooses for the client of p, by its template or by the scheduler.
// NoService says that a reload has freed the real server: svc is of an old
// configuration.
func (q *Queue) choose(svc *service, p *packet.Packet, now time.Duration) (choice, packet.Reason) {
	if svc.persistent == nil {
		rs := svc.pick(&p.Tuple, now)
		if rs == nil {
			return choice{}, packet.NoRealServer
		}
		if !rs.acquire() {
			return choice{}, packet.NoService
		}
		return choice{server: rs}, packet.OK
	}
	key, ok := svc.persistent.identify(p, &p.Tuple.Src)
	if !ok {
		return choice{}, packet.NoCallID
	}
	t := q.b.table
	hash := key.Hash(t.seed)
	if c, ok := t.useTemplate(svc, &key, hash, tickOf(now), nil); ok {
		return c, packet.OK
	}
	rs := svc.pick(&p.Tuple, now)
	if rs == nil {
		return choice{}, packet.NoRealServer
	}
	if !rs.acquire() {
		return choice{}, packet.NoService
	}
	return t.addTemplate(svc, &key, hash, rs, tickOf(now))
}
