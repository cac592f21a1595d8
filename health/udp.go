package health

import (
	"bytes"
	"context"
	"fmt"
)

// udp sends a datagram and waits for one that holds the text that is wanted,
// or for any where none is.
type udp struct {
	send, receive []byte
}

func newUDP(o *Options) (Check, error) {
	return &udp{send: []byte(o.Send), receive: []byte(o.Receive)}, nil
}

func (c *udp) Check(ctx context.Context, to Target) error {
	conn, err := to.dial(ctx, "udp")
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(c.send); err != nil {
		return err
	}
	buf := make([]byte, maxAnswer)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	if !bytes.Contains(buf[:n], c.receive) {
		return fmt.Errorf("no %q in the answer %s", c.receive, excerpt(buf[:n]))
	}
	return nil
}
