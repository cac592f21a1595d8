package lb

import (
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// TestTCPStates plays packets, c by the client and s by the real server, with
// flags S, A, F, R or - for none. The rows are what the kernel's IPVS was seen
// to do.
func TestTCPStates(t *testing.T) {
	tests := []struct {
		name     string
		oneSided bool
		packets  string
		want     string // the state after each
	}{
		{"secure: the client's ACK does not establish, the real server's does", false,
			"c:S s:SA c:A c:PA s:A s:PA c:A c:FA s:A s:FA c:A",
			"syn_recv synack synack synack established established established close_wait close_wait time_wait time_wait"},
		{"secure: a client alone stays where it is", false, "c:S c:A c:S", "syn_recv syn_recv syn_recv"},
		{"secure: a FIN of the client's does not leave SYNACK, a RST does", false, "c:S s:SA c:FA c:R", "syn_recv synack synack close"},
		{"secure: one side of a flow", true, "c:S c:A c:FA c:S c:A", "synack established fin_wait synack established"},
		{"the client closes first, both sides seen", false,
			"c:S s:SA c:A c:FA s:FA c:A", "syn_recv syn_recv established close_wait time_wait time_wait"},
		{"the real server closes first", false,
			"c:S s:SA c:A s:FA c:FA s:A", "syn_recv syn_recv established fin_wait time_wait time_wait"},
		{"the client closes, its side only", true,
			"c:S c:A c:FA c:A", "syn_recv established fin_wait fin_wait"},
		{"a RST of the client does not end what is not established", false,
			"c:S c:R", "syn_recv syn_recv"},
		{"a RST of the real server refuses", false,
			"c:S s:RA", "syn_recv close"},
		{"a RST of the client ends an established connection", true,
			"c:S c:A c:R", "syn_recv established close"},
		{"a FIN before the connection is established", false,
			"c:S c:F", "syn_recv time_wait"},
		{"the client's SYN with ACK changes nothing", false,
			"c:S s:SA c:A c:SA", "syn_recv syn_recv established established"},
		{"no flags close", true,
			"c:S c:A c:-", "syn_recv established close"},
		{"a SYN does not move an established connection", true,
			"c:S c:A c:S", "syn_recv established established"},
		{"RST wins over SYN, SYN over FIN, FIN over ACK", true,
			"c:S c:A c:FAP c:SF c:RSF", "syn_recv established fin_wait syn_recv syn_recv"},
	}
	flags := map[rune]uint8{'S': packet.SYN, 'A': packet.ACK, 'F': packet.FIN, 'R': packet.RST, 'P': 8}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := first(packet.TCP)
			var got []string
			for step := range strings.FieldsSeq(tt.packets) {
				var bits uint8
				for _, f := range step[2:] {
					bits |= flags[f]
				}
				e, _ := tcpEvent(bits)
				s = s.next(e, wayOf(map[byte]Direction{'c': Request, 's': Reply}[step[0]], tt.oneSided), strings.HasPrefix(tt.name, "secure: "))
				got = append(got, s.String())
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("%s: %s, want %s", tt.packets, g, tt.want)
			}
		})
	}
}

func TestSCTPStates(t *testing.T) {
	chunks := map[string]uint8{
		"INIT": chunkInit, "INIT-ACK": chunkInitAck, "ECHO": chunkCookieEcho, "COOKIE-ACK": chunkCookieAck, "DATA": 0,
		"SHUTDOWN": chunkShutdown, "SHUTDOWN-ACK": chunkShutdownAck, "COMPLETE": chunkShutdownComplete, "ABORT": chunkAbort,
		"ERROR": chunkError, "HEARTBEAT": 4, "SACK": 3,
	}
	tests := []struct {
		name     string
		oneSided bool
		packets  string
		want     string
	}{
		{"an association from beginning to end", false,
			"c:INIT s:INIT-ACK c:ECHO s:COOKIE-ACK c:DATA c:SHUTDOWN s:SHUTDOWN-ACK c:COMPLETE",
			"init1 cookie_sent cookie_replied established established shutdown_received shutdown_ack_sent closed"},
		{"the client's side only", true,
			"c:INIT c:ECHO c:DATA c:SHUTDOWN c:COMPLETE",
			"init1 established established shutdown_received closed"},
		{"a second INIT waits longer", false, "c:INIT c:INIT", "init1 init"},
		{"the real server refuses", false, "c:INIT s:ABORT", "init1 rejected"},
		{"an abort ends it", false, "c:INIT s:INIT-ACK c:ECHO s:COOKIE-ACK c:ABORT", "init1 cookie_sent cookie_replied established closed"},
		{"the real server sets it up", false,
			"s:INIT c:INIT-ACK s:ECHO c:COOKIE-ACK s:DATA s:SHUTDOWN c:SHUTDOWN-ACK s:COMPLETE",
			"cookie_wait cookie cookie_echoed established established shutdown_sent closed closed"},
		{"the real server sets it up, the client's side only", true,
			"c:INIT-ACK c:COOKIE-ACK c:DATA", "cookie_echoed established established"},
		{"the client refuses", false, "s:INIT c:ABORT", "cookie_wait rejected"},
		{"what is closed or was refused begins anew as a second INIT", false, "c:INIT s:ABORT c:INIT c:ABORT c:INIT", "init1 rejected init closed init"},
		{"an error ends what is not set up", false, "c:INIT s:ERROR", "init1 closed"},
		{"an error leaves what is", false, "c:INIT s:INIT-ACK c:ECHO s:COOKIE-ACK s:ERROR c:HEARTBEAT s:SACK", "init1 cookie_sent cookie_replied established established established established"},
		{"an ACK of nothing opens nothing", false, "c:INIT c:COOKIE-ACK s:DATA", "init1 init1 init1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := first(packet.SCTP)
			var got []string
			for step := range strings.FieldsSeq(tt.packets) {
				e, _ := sctpEvent(chunks[step[2:]])
				s = s.next(e, wayOf(map[byte]Direction{'c': Request, 's': Reply}[step[0]], tt.oneSided), false)
				got = append(got, s.String())
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("%s: %s, want %s", tt.packets, g, tt.want)
			}
		})
	}
}

func TestLifetimes(t *testing.T) {
	l := Timeouts{TCPEstablished: time.Minute, UDPNormal: 10 * time.Second}.lifetimes()
	for s, want := range map[State]time.Duration{
		TCPEstablished: time.Minute, SCTPEstablished: 900 * time.Second, UDPNormal: 10 * time.Second,
		TCPFinWait: 120 * time.Second, TCPClose: 10 * time.Second, TCPSynRecv: 60 * time.Second,
	} {
		if got := time.Duration(l[s]) << tickShift; got < want || got > want+1<<tickShift {
			t.Errorf("%v lives %v, want %v", s, got, want)
		}
	}
}

// TestReuse: a SYN on a closed connection opens a new one, on any other it stays
// with the old.
func TestReuse(t *testing.T) {
	for s := range numTCPStates {
		table, set := newTestTable(t, 10, fakeMode{})
		key := clientTuple(1, packet.TCP)
		table.add(set[0], key, s, 0)
		_, _, found := table.find(key, tcpSYN, true, 0)
		if want := s != TCPTimeWait && s != TCPClose; found != want {
			t.Errorf("a SYN finds the flow in %v: %v, want %v", s, found, want)
		}
		if table.Len() == 1 != found {
			t.Errorf("%v: found %v, and %d flows", s, found, table.Len())
		}
	}
}

// TestActiveCount follows the counters of a real server through a connection.
func TestActiveCount(t *testing.T) {
	table, set := newTestTable(t, 10, fakeMode{direct: true})
	rs, key := set[0], clientTuple(1, packet.TCP)
	check := func(what string, active, inactive int64) {
		t.Helper()
		if rs.ActiveFlows() != active || rs.InactiveFlows() != inactive {
			t.Errorf("%s: %d active and %d inactive, want %d and %d", what, rs.ActiveFlows(), rs.InactiveFlows(), active, inactive)
		}
	}
	table.add(rs, key, TCPSynRecv, 0)
	check("after the SYN", 1, 0)
	table.find(key, tcpACK, false, 1)
	check("established", 1, 0)
	table.find(key, tcpFIN, false, 2)
	check("after the FIN", 0, 1)
	table.add(rs, clientTuple(2, packet.UDP), UDPNormal, 2)
	check("with a UDP flow", 0, 2)
	table.sweepAll(1 << 20)
	check("at the end", 0, 0)
}
