package integration

// The bed of the tests of the fast lane: few hosts, and connections that the
// tests hold themselves.
//
//	  client                     director                    rs
//	198.18.0.2 ─────── 198.18.0.1  10.1.0.1 ─────── 10.1.0.2 echoes
//
//	VIP 203.0.113.10, routed to the director, and on the loopback of rs

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

const (
	laneVIP = "203.0.113.10:80"
	laneRIP = "10.1.0.2:80"
)

// laneServices, of nat, has every packet of an established flow offer its flow,
// and takes on a connection that another director has begun.
const laneServices = `
device: {offload: required, offload_every: 1}
services:
  - name: echo
    listen: ["203.0.113.10:80/tcp"]
    mode: nat
    scheduler: sh
    health: {type: none}
    policy: {sloppy: true}
    real_servers: [{address: "10.1.0.2:80"}]
`

// A laneBed is the topology above, whose rs echoes.
type laneBed struct {
	client, director, rs *lab.Host
}

func newLaneBed(t *testing.T) *laneBed {
	t.Helper()
	return joinedLaneBed(t, func(a, b *lab.Host, ours, theirs string) { a.Link(b, ours, theirs) })
}

// joinedLaneBed has its hosts joined by join, with their addresses.
func joinedLaneBed(t *testing.T, join func(a, b *lab.Host, ours, theirs string)) *laneBed {
	t.Helper()
	l := newLab(t)
	b := &laneBed{client: l.Host("client"), director: l.Host("director").Forward(), rs: l.Host("rs")}
	join(b.client, b.director, "198.18.0.2/24", "198.18.0.1/24")
	b.client.Route("default", "198.18.0.1")
	join(b.director, b.rs, "10.1.0.1/24", "10.1.0.2/24")
	b.rs.Route("default", "10.1.0.1").Addr("lo", "203.0.113.10/32")
	drawn(t, l)
	b.echo(t)
	return b
}

// echo serves connections until the lab ends.
func (b *laneBed) echo(t *testing.T) {
	t.Helper()
	ln, err := b.rs.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
}

// A talk is a connection from the client to the VIP.
type talk struct{ net.Conn }

func (b *laneBed) talk(t *testing.T) *talk {
	t.Helper()
	return b.talkTo(t, laneVIP)
}

func (b *laneBed) talkTo(t *testing.T, vip string) *talk {
	t.Helper()
	conn, err := b.client.Dial(within(t), "tcp", vip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &talk{conn}
}

// say sends a word so many times and reads it back each time.
func (k *talk) say(t *testing.T, times int) {
	t.Helper()
	deadline, _ := within(t).Deadline()
	k.SetDeadline(deadline)
	said, heard := []byte("ahoy"), make([]byte, 4)
	for range times {
		if _, err := k.Write(said); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(k, heard); err != nil {
			t.Fatal(err)
		}
	}
}

// A listed flow is one of uvs flows --json.
type listed struct {
	Client     string   `json:"client"`
	VIP        string   `json:"vip"`
	RealServer string   `json:"real_server"`
	State      string   `json:"state"`
	Runs       string   `json:"runs"`
	Flags      []string `json:"flags"`
	Expires    float64  `json:"expires_seconds"`
}

func flows(t *testing.T, d *director, args ...string) (list []listed, matched int) {
	t.Helper()
	var answer struct {
		Flows   []listed `json:"flows"`
		Matched int      `json:"matched"`
	}
	out := run(t, d.host, d.bin, append([]string{"flows", "--json", "--socket", d.socket}, args...)...)
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Flows, answer.Matched
}

// intoTheLane talks until the flow of k runs there.
func (k *talk) intoTheLane(t *testing.T, d *director) {
	t.Helper()
	err := lab.Wait(within(t), "the flow to run in the lane", func() error {
		k.say(t, 4)
		list, _ := flows(t, d, "--client", k.LocalAddr().String())
		if len(list) != 1 || list[0].Runs != "lane" {
			return fmt.Errorf("%v", list)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, run(t, d.host, d.bin, "explain", "--socket", d.socket, k.LocalAddr().String(), laneVIP+"/tcp"))
	}
}

// staysInTheLane talks, and looks that hardly a packet crosses the TUN device. A
// machine that keeps uvs from saying that it lives for two seconds sends the
// flow there for a while, so there are three tries.
func (k *talk) staysInTheLane(t *testing.T, d *director, when string) {
	t.Helper()
	crossed := 0
	for range 3 {
		k.intoTheLane(t, d)
		before := crossedTUN(t, d)
		k.say(t, 100)
		if crossed = crossedTUN(t, d) - before; crossed <= 20 {
			return
		}
	}
	t.Errorf("%s: %d packets of a flow in the lane crossed the TUN device", when, crossed)
}

// crossedTUN is how many packets have crossed the TUN device.
func crossedTUN(t *testing.T, d *director) int {
	t.Helper()
	var state struct {
		Packets struct {
			Received int `json:"received"`
		} `json:"packets"`
	}
	if err := json.Unmarshal([]byte(run(t, d.host, d.bin, "status", "--json", "--socket", d.socket)), &state); err != nil {
		t.Fatal(err)
	}
	return state.Packets.Received
}
