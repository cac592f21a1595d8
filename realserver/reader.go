package realserver

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// assumedMTU is how long the packets were, in bytes, that the kernel merged
// before the socket: what fits into a tunnel over Ethernet. TCP uses it only to
// judge how often to acknowledge.
const assumedMTU = 1480

// A reader takes the packets of one socket to the TUN device:
//
//  1. receive a batch
//  2. strip the outer headers, parse the inner packet
//  3. drop what is not for a VIP
//  4. if the kernel merged it already, say so
//  5. merge it with the segments of its connection before it, or write those
//     and begin anew
//  6. at the end of the batch write what is left
type reader struct {
	socket *socket
	queue  stack.Queue
	vips   map[packet.Endpoint]bool // port 0; immutable
	batch  *batch
	merge  merger
	counters
}

func newReader(s *socket, q stack.Queue, vips map[packet.Endpoint]bool) *reader {
	return &reader{socket: s, queue: q, vips: vips, batch: newBatch()}
}

// run reads until stop is called.
func (r *reader) run() error {
	for {
		n, err := r.batch.receive(r.socket)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.unpack(n); err != nil {
			return err
		}
	}
}

// stop ends run.
func (r *reader) stop() error {
	if err := r.socket.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// unpack handles the first n packets of the batch.
func (r *reader) unpack(n int) error {
	r.packets.Add(uint64(n))
	for i := range n {
		p, class := r.batch.at(i, r.socket.header)
		if why := r.strip(p, class); why != packet.OK {
			r.dropped[why].Add(1)
			continue
		}
		r.bytes.Add(uint64(p.Len()))
		p.AdoptUnfinished(assumedMTU)
		if err := r.write(r.merge.add(p)); err != nil {
			return err
		}
	}
	for p := r.merge.next(); p != nil; p = r.merge.next() {
		if err := r.write(p); err != nil {
			return err
		}
	}
	return nil
}

// strip makes p the inner packet, if it is for a VIP.
func (r *reader) strip(p *packet.Packet, class uint8) packet.Reason {
	if why := p.DecapsulatePayload(r.socket.kind, r.socket.proto, class); why != packet.OK {
		return why
	}
	if why := p.Parse(); why != packet.OK {
		return why
	}
	addr, family := p.Destination()
	if !r.vips[packet.Endpoint{Addr: addr, Family: family}] {
		return packet.NoService
	}
	if r.vips[packet.Endpoint{Addr: p.Tuple.Src, Family: p.Tuple.Family}] {
		return packet.BadSource
	}
	return packet.OK
}

// write gives p, which may be nil, to the kernel. What it refuses is dropped and
// counted.
func (r *reader) write(p *packet.Packet) error {
	if p == nil {
		return nil
	}
	buf, start, end := p.Buffer()
	frame := buf[start-packet.VNetLen : end]
	p.PutVNet(frame, 0)
	err := r.queue.Write(frame)
	if errors.Is(err, unix.EBADFD) {
		return errDeviceGone
	}
	if err != nil {
		r.dropped[packet.SendFailed].Add(1)
		return nil
	}
	r.writes.Add(1)
	return nil
}
