// Package replay plays a whole director offline: it takes recorded packets, or
// those of a capture, through the very code that carries them live, and says
// what would leave.
//
//	vector or capture ─► Director ─► host ─► lb.Balancer ─► host ─► frames
//
// A [File] holds vectors: stories of packets, commands of ipvsadm and listings,
// with what a director was seen to do. A [Director] is told the same story step
// by step. Its host stage plays the kernel's part, which a live director does
// not need: sanity of headers, source filters, TTL, IPv4 options, routes,
// neighbours, MTU and the local stack. [Check] compares what came out.
//
// Nothing here opens a device or needs a right, and time is that of the story.
package replay

import (
	"net/netip"
	"strings"
	"time"

	"github.com/uvs-project/uvs/config/compat"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// A Director is one director with its machine, at a time of its own.
type Director struct {
	host      *host
	balancer  *lb.Balancer
	queue     *lb.Queue
	fragments *stack.Fragments
	buf       []byte
	now       time.Duration
	said      []string // about the packet in work, see Step.Said

	table  compat.Table
	sysctl map[string]string
	marked marks // what a firewall mark stands for

	witness Witness
}

// flowLimit is the size of a Director's flow table.
const flowLimit = 100_000

// New makes a Director in the network of t, without services and with IPVS's
// defaults.
func New(t *Topology) (*Director, error) { return newDirector(t, Witness{}) }

func newDirector(t *Topology, w Witness) (*Director, error) {
	net, err := newNetwork(t)
	if err != nil {
		return nil, err
	}
	d := &Director{
		fragments: stack.NewFragments(),
		buf:       make([]byte, packet.Headroom+packet.MaxSize+packet.Headroom),
		sysctl:    map[string]string{},
		witness:   w,
	}
	d.host = &host{net: net, balance: d.balance, learned: d.learned, parts: newAssembler()}
	d.host.parts.lifetime = [2]time.Duration{fragmentTime4, fragmentTime6}
	d.host.parts.late = func(first []byte) { d.host.complain(first, fragmentsLate, 0) }
	if d.balancer, err = lb.New(lb.Options{Flows: flowLimit, EveryAnswer: true, Offload: w.Offload, OfferEvery: 1}); err != nil {
		return nil, err
	}
	d.queue = d.balancer.Queue(0)
	d.table.Unicast = func(a netip.Addr) bool { return net.lookup(a).kind != broadcast }
	for _, s := range t.Sysctl {
		d.Sysctl(s)
	}
	return d, nil
}

// Close gives the memory of the Director back.
func (d *Director) Close() { d.balancer.Close() }

// tickEvery is how often the balancer's own work is done, as lb.Balancer.Run
// does it.
const tickEvery = time.Second / 16

// Where more than longGap is to pass, the balancer's own work is done every
// longTick until then: what was due is over all the same, and a capture of days
// is played in seconds.
const (
	longGap  = time.Hour
	longTick = time.Minute
)

// Advance lets time pass until now, and gives what left meanwhile.
func (d *Director) Advance(now time.Duration) []Frame {
	d.host.out = nil
	for d.now+tickEvery <= now {
		step := tickEvery
		if now-d.now > longGap {
			step = longTick
		}
		d.now += step
		d.tick()
	}
	d.now = max(d.now, now)
	d.host.now = d.now
	return d.host.out
}

// ticksForAll is how many ticks look at all flows: so much is done at once, so
// that what is listed does not depend on the seed of the flow table.
const ticksForAll = 16

func (d *Director) tick() {
	d.host.now = d.now
	for range ticksForAll {
		d.balancer.Tick(d.now)
	}
	d.host.parts.expire(d.now)
}

// Inject gives the Director a frame and returns what leaves because of it.
// eth is the type of the frame, as four hexadecimal digits, "" for that of the
// packet; toAll says that it is not addressed to the Director alone.
func (d *Director) Inject(b []byte, eth string, toAll bool) []Frame {
	var after func([]Frame)
	if d.witness.Packet != nil {
		after = d.witness.Packet(d, b)
	}
	d.host.out, d.said = nil, nil
	d.host.receive(append([]byte(nil), b...), eth, toAll)
	if after != nil {
		after(d.host.out)
	}
	return d.host.out
}

// balance takes b through the balancer as a queue of the live road does.
func (d *Director) balance(b []byte) (r handled) {
	batch := make([]packet.Packet, 1)
	p := &batch[0]
	p.Reset(d.buf, packet.Headroom, packet.Headroom+copy(d.buf[packet.Headroom:], b))
	if why := p.Parse(); why != packet.OK {
		d.said = append(d.said, "drop, "+why.String())
		return handled{why: why}
	}
	d.queue.Prepare(batch)
	decide := func(p *packet.Packet) {
		verdict, why := d.queue.Handle(p, d.now)
		if verdict != packet.Send || why != packet.OK {
			d.said = append(d.said, verdict.String()+", "+why.String())
		}
		part := handledPart{verdict: verdict, why: why, b: append([]byte(nil), p.Bytes()...), cut: p.CutLen()}
		if p.NextHop.Family != 0 {
			part.next = p.NextHop.AddrPort().Addr()
		}
		r.parts = append(r.parts, part)
	}
	if p.Fragment().Is {
		d.fragments.Carry(p, d.now, decide)
		if len(r.parts) == 0 {
			d.said = append(d.said, "a fragment that waits for others, or one too many")
		}
		return r
	}
	decide(p)
	return r
}

// Setup does a shell line of a vector's set-up, or says that it cannot.
func (d *Director) Setup(line string) error {
	err := d.host.net.setup(line, d.Sysctl)
	d.pathMTUs()
	return err
}

// Sysctl sets a kernel variable, PATH=VALUE, and says whether it is known.
func (d *Director) Sysctl(setting string) bool {
	path, value, ok := strings.Cut(setting, "=")
	if !ok {
		return false
	}
	path = strings.TrimSpace(path)
	d.sysctl[path] = value
	switch path {
	case "net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding":
		d.host.forward[0] = number(value) != 0
	case "net.ipv6.conf.all.forwarding":
		d.host.forward[1] = number(value) != 0
	default:
		if !strings.HasPrefix(path, "net.ipv4.vs.") {
			return strings.HasPrefix(path, "net.")
		}
		return d.setIPVS(strings.TrimPrefix(path, "net.ipv4.vs."))
	}
	return true
}

// pathMTUs tells the balancer what fits on the way to each real server.
func (d *Director) pathMTUs() {
	for _, s := range d.table.Services {
		for _, rs := range s.Servers {
			d.fits(rs.Addr.Addr())
		}
	}
}

// PathMTU is what fits on the way to an address, 0 where there is none.
func (d *Director) PathMTU(to netip.Addr) int { return d.pathMTU(to) }

func (d *Director) pathMTU(rip netip.Addr) int {
	if way := d.host.net.lookup(rip); way.kind == unicast {
		return d.host.net.mtu(way, rip)
	}
	return 0
}
