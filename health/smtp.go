package health

import (
	"context"
	"net/textproto"
)

// smtp greets a mail server and takes leave (RFC 5321).
type smtp struct{ name string }

func newSMTP(o *Options) (Check, error) {
	c := &smtp{name: o.Host}
	if c.name == "" {
		c.name = "localhost"
	}
	return c, nil
}

func (c *smtp) Check(ctx context.Context, to Target) error {
	conn, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	t := textproto.NewConn(conn)
	defer t.Close()
	if _, _, err := t.ReadResponse(220); err != nil {
		return err
	}
	if err := ask(t, 250, "EHLO "+c.name); err != nil {
		return err
	}
	return ask(t, 221, "QUIT")
}

// ask sends one command and wants an answer of the code.
func ask(t *textproto.Conn, code int, command string) error {
	if err := t.PrintfLine("%s", command); err != nil {
		return err
	}
	_, _, err := t.ReadResponse(code)
	return err
}
