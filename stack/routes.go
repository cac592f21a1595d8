package stack

import "github.com/uvs-project/uvs/packet"

// Routes tells the link egress the way to a destination, so that a packet can
// leave by a packet socket without the host's routing. Package stack/host
// implements it by what netlink says of the host's routes and neighbours.
type Routes interface {
	// Lookup returns the hop of a packet to dst (Family and Addr count, the
	// port does not), or nil where only the kernel can route it: no route, a
	// device that is not Ethernet, a route with an encapsulation or a policy
	// rule of somebody else. hash spreads flows over a multipath route.
	//
	// Every queue calls it for each packet at the same time: it must not
	// block, allocate or lock. A Hop that was returned is never changed.
	Lookup(dst packet.Endpoint, hash uint32) *Hop

	// Resolve asks for the link address of h's neighbour, which is then told
	// by Neighbour.Set or Neighbour.Fail from another goroutine. It is called
	// from a queue's goroutine and must return at once.
	Resolve(h *Hop)
}

// A Hop is one way out: a device and the neighbour behind it. It is immutable
// but for its Neighbour.
type Hop struct {
	Device    string     // name, for logs
	IfIndex   int        // of the device
	MTU       int        // bytes of IP packet that fit: the route's, else the device's
	Source    MAC        // the device's own address
	Neighbour *Neighbour // the gateway, or the destination itself where it is on the link; shared by all hops that lead over it
}

// A MAC is an Ethernet address.
type MAC [6]byte
