package health

import (
	"context"
	"io"
)

// redis sends a PING and wants a PONG.
type redis struct{}

func newRedis(*Options) (Check, error) { return redis{}, nil }

func (redis) Check(ctx context.Context, to Target) error {
	conn, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	return await(conn, []byte("+PONG\r\n"))
}
