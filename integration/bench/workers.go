package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// The program runs itself again inside a namespace for the parts of a
// measurement that no tool does; a worker is one such part. It prints its
// result on the standard output.
const (
	workerProbe = "worker-probe"
	workerPace  = "worker-pace"
	workerSend  = "worker-send"
	workerSink  = "worker-sink"
)

var workers = map[string]func(args []string) error{
	workerProbe: probe,
	workerPace:  pace,
	workerSend:  sendUDP,
	workerSink:  sinkUDP,
}

// self is the running program's file.
func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err) // Linux without /proc: nothing here would work
	}
	return path
}

// probe fetches a page by HTTP and prints its body, trying again until -for is over.
func probe(args []string) error {
	fs := flag.NewFlagSet(workerProbe, flag.ContinueOnError)
	patience := fs.Duration("for", time.Second, "how long to try")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *patience)
	defer cancel()
	for {
		body, err := fetch(ctx, fs.Arg(0))
		if err == nil {
			_, err = os.Stdout.Write(body)
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond): // a program that starts; nothing tells us when it is ready
		}
	}
}

// attempt is how long one try of probe may take: a SYN that was lost while the
// contender started is sent anew by the next try rather than by TCP.
const attempt = 500 * time.Millisecond

func fetch(ctx context.Context, addr string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: bench\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
