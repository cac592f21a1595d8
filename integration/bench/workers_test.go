package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

func TestPaceCountsAStallForEveryRequestThatItHeldUp(t *testing.T) {
	const stall = 100 * time.Millisecond
	requests := make(chan struct{}, 1)
	requests <- struct{}{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-requests:
			time.Sleep(stall) // the first request only; those due meanwhile wait behind it
		default:
		}
		fmt.Fprintln(w, "page")
	}))
	defer srv.Close()
	p, err := newPacer(netip.MustParseAddrPort(srv.Listener.Addr().String()), 1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.run(1000, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got.Requests != 200 {
		t.Errorf("%d requests were answered, want 200", got.Requests)
	}
	// 1 in 200 requests stalled by itself; with a closed loop, which sends the
	// next request after the answer, only it would show.
	if held := float64(stall / time.Microsecond); got.Max < held || got.P99 < held*8/10 {
		t.Errorf("max %v, 99%% %v µs: the stall of %v must show in all that waited for its end", got.Max, got.P99, stall)
	}
}

func TestCountAnswers(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npage\n"
	for cut := range len(answer) {
		n, rest := countAnswers([]byte(answer + answer + answer[:cut]))
		if n != 2 || string(rest) != answer[:cut] {
			t.Fatalf("two answers and %d bytes: counted %d, left %q", cut, n, rest)
		}
	}
}

func TestSendUDPDelivers(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fds, err := connectUDP(conn.LocalAddr().(*net.UDPAddr).AddrPort(), 2)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[uint16]int{}
	for _, fd := range fds {
		n, err := sendmmsg(fd, messages(64))
		if err != nil || n != udpBatch {
			t.Fatalf("sent %d of %d: %v", n, udpBatch, err)
		}
	}
	buf := make([]byte, 2048)
	for range 2 * udpBatch {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil || n != 64 {
			t.Fatalf("read %d bytes: %v", n, err)
		}
		ports[from.Port()]++
	}
	if len(ports) != 2 {
		t.Errorf("packets by source port: %v, want two flows", ports)
	}
}
