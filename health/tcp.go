package health

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// tcp connects and, where it has something to send or to wait for, does that.
//
// A mere connection to a real server's own address is not made by Check but by
// a Monitor's handshaker.
type tcp struct {
	send, receive []byte
}

func newTCP(o *Options) (Check, error) {
	return &tcp{send: []byte(o.Send), receive: []byte(o.Receive)}, nil
}

func (c *tcp) Check(ctx context.Context, to Target) error {
	conn, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer conn.Close()
	if len(c.send) > 0 {
		if _, err := conn.Write(c.send); err != nil {
			return err
		}
	}
	return await(conn, c.receive)
}

// mere says whether c does nothing but connect to the target.
func (c *tcp) mere(to *Target) bool {
	return len(c.send) == 0 && len(c.receive) == 0 && to.Prepare == nil
}

// maxAnswer is how much of a real server's answer is searched.
const maxAnswer = 64 << 10

// await reads until want was seen.
func await(r io.Reader, want []byte) error {
	if len(want) == 0 {
		return nil
	}
	var got []byte
	buf := make([]byte, 4096)
	for len(got) < maxAnswer {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if bytes.Contains(got, want) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("no %q in the answer %s: %w", want, excerpt(got), err)
		}
	}
	return fmt.Errorf("no %q in the first %d bytes of the answer", want, maxAnswer)
}

// excerpt quotes the beginning of an answer for an error.
func excerpt(b []byte) string {
	const most = 80
	if len(b) > most {
		return fmt.Sprintf("%q…", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
