package integration

// The kernel's selftest of IPVS, tools/testing/selftests/net/netfilter/ipvs.sh,
// step by step with its own addresses, uvs in the place of ipvsadm:
//
//	ns0 client: br0 10.0.0.2/24 = {ns1, ns2}
//	        ns0 ─── ns1 10.0.0.1/24        director, outer leg
//	        ns0 ─── ns2 10.0.0.3/24        real server, reply leg (bridged to the client)
//	ns1 director: 10.0.0.1/24 and 172.16.0.1/24
//	        ns1 ─── ns2 172.16.0.2/24      real server, request leg
//
// What differs: the VIP is not put on lo of the director, which would keep it
// from uvs, and ns1 forwards in every test, because the kernel carries packets
// into the TUN device. As in the original the real server has no route back to
// ns1 in dr and tun: a reply that took that way would show.

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

const selftestVIP = "207.175.44.110"

// A selftest is the topology of ipvs.sh.
type selftest struct{ ns0, ns1, ns2 *lab.Host }

func newSelftest(t *testing.T) *selftest {
	l := newLab(t)
	s := &selftest{ns0: l.Host("ns0"), ns1: l.Host("ns1"), ns2: l.Host("ns2")}
	s.ns0.Bridge("br0", "10.0.0.2/24")
	s.ns0.Link(s.ns1, "", "10.0.0.1/24")
	s.ns1.Link(s.ns2, "172.16.0.1/24", "172.16.0.2/24")
	s.ns0.Route(selftestVIP+"/32", "10.0.0.1")
	s.ns1.Forward()
	return s
}

// replyLeg joins the real server to the client's bridge.
func (s *selftest) replyLeg() { s.ns0.Link(s.ns2, "", "10.0.0.3/24") }

// service is the configuration that the original makes by ipvsadm.
func (s *selftest) service(mode string) string {
	return `
services:
  - name: selftest
    listen: ["` + selftestVIP + `:8080/tcp"]
    mode: ` + mode + `
    scheduler: rr
    health: {type: none}
    real_servers:
      - {address: "172.16.0.2:8080"}
`
}

// connect is the original's test_service: 32 random bytes one way by socat, but
// with more time than the original gives.
func (s *selftest) connect(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	bytesIn := make([]byte, 32)
	rand.Read(bytesIn)
	if err := os.WriteFile(in, bytesIn, 0o644); err != nil {
		t.Fatal(err)
	}
	server, err := s.ns2.Start(exec.Command("sh", "-c", "timeout 120 socat -u -4 TCP-LISTEN:8080,reuseaddr STDOUT > "+out))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ns2.WaitListen(within(t), "tcp/8080"); err != nil {
		t.Fatal(err)
	}
	run(t, s.ns0, "sh", "-c", "timeout 60 socat -u -4 STDIN TCP:"+selftestVIP+":8080 < "+in)
	if err := server.Wait(within(t)); err != nil {
		t.Error(err)
	}
	bytesOut, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(bytesOut, bytesIn) {
		t.Errorf("received % x, want % x (%v)", bytesOut, bytesIn, err)
	}
}

func TestKernelSelftestDR(t *testing.T) {
	need(t, "socat", "timeout")
	s := newSelftest(t)
	s.replyLeg()
	s.ns2.Sysctl("net.ipv4.conf.all.arp_ignore", "1").Sysctl("net.ipv4.conf.all.arp_announce", "2")
	s.ns2.Sysctl("net.ipv4.conf.all.rp_filter", "0").Sysctl("net.ipv4.conf.ns1.rp_filter", "0")
	s.ns2.Addr("lo", selftestVIP+"/32")
	drawn(t, s.ns0.Lab())
	startDirector(t, s.ns1, s.service("dr"))
	s.connect(t)
}

func TestKernelSelftestNAT(t *testing.T) {
	need(t, "socat", "timeout")
	s := newSelftest(t)
	s.ns2.Route("default", "172.16.0.1")
	drawn(t, s.ns0.Lab())
	startDirector(t, s.ns1, s.service("nat"))
	s.connect(t)
}

func TestKernelSelftestTUN(t *testing.T) {
	need(t, "socat", "timeout")
	s := newSelftest(t)
	s.replyLeg()
	s.ns1.Sysctl("net.ipv4.conf.all.send_redirects", "0").Sysctl("net.ipv4.conf.default.send_redirects", "0")
	s.ns2.Sysctl("net.ipv4.conf.all.rp_filter", "0").Sysctl("net.ipv4.conf.ns1.rp_filter", "0")
	drawn(t, s.ns0.Lab())
	// In the place of tunl0 and of the VIP on lo, which need not be had on this kernel.
	if err := setUp(s.ns2, exec.Command(uvsProgram(t), "realserver", "setup", "--foreground", "--mode", "tun", "--vip", selftestVIP)); err != nil {
		t.Fatal(err)
	}
	startDirector(t, s.ns1, s.service("tun"))
	s.connect(t)
}
