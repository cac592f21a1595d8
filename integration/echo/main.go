// Command echo is a server and a client for places that hold no other program,
// such as containers made for a test.
//
//	echo serve NAME TCP-ADDRESS[,…] UDP-ADDRESS[,…]    package lab's echo server
//	echo get URL                                       print what the URL gives
//	echo udp ADDRESS TEXT                              print what a datagram gets back
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// patience is how long a client waits for an answer.
const patience = 20 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 4 && args[0] == "serve":
		ready := make(chan struct{})
		go func() {
			<-ready
			fmt.Println("ready")
		}()
		return lab.ServeEcho(ctx, args[1], strings.Split(args[2], ","), strings.Split(args[3], ","), ready)
	case len(args) == 2 && args[0] == "get":
		return get(args[1])
	case len(args) == 3 && args[0] == "udp":
		return udp(args[1], args[2])
	}
	return errors.New("usage: echo serve NAME TCP UDP | get URL | udp ADDRESS TEXT")
}

func get(url string) error {
	answer, err := (&http.Client{Timeout: patience}).Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

func udp(addr, text string) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(buf[:n])
	return err
}
