package integration

// Checks through the forwarding mode, in the topology of bed_test.go.

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// throughTheMode are the variants whose real servers can be checked so: all
// but nat's.
var throughTheMode = some("dr IPv4", "dr IPv6", "tun ipip IPv4", "tun ipip IPv6", "tun ipip IPv4 in IPv6", "tun ipip IPv6 in IPv4",
	"tun gue IPv4", "tun gre IPv6", "fullnat IPv4", "fullnat IPv6", "fullnat IPv4 to IPv6", "fullnat IPv6 to IPv4")

// checkedService is the variant as a service whose real servers are checked.
func (v *variant) checkedService(health string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n    mode: %s\n", strings.ReplaceAll(v.name, " ", "-"), v.mode)
	if v.tunnel != "" {
		fmt.Fprintf(&b, "    tunnel: {type: %s}\n", v.tunnel)
	}
	fmt.Fprintf(&b, "    health: %s\n    listen: [\"%s:80/tcp\"]\n    real_servers: [{address: %q}, {address: %q}]\n",
		health, literal(v.vip), v.rip(1), v.rip(2))
	return b.String()
}

// awaitState waits until the director says that a real server of the variant
// is in a state.
func (b *bed) awaitState(t *testing.T, d *director, v *variant, n int, state string) {
	t.Helper()
	series := fmt.Sprintf(`uvs_real_server_state{real_server=%q,service=%q,state=%q} 1`, v.rip(n), strings.ReplaceAll(v.name, " ", "-"), state)
	err := lab.Wait(within(t), fmt.Sprintf("%s: real server %d to be %s", v.name, n, state), func() error {
		metrics, err := d.get(t.Context(), "/metrics")
		if err == nil && !strings.Contains(metrics, series) {
			err = errors.New("it is not")
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, run(t, b.director, d.bin, "status", "--socket", d.socket))
	}
}

func TestChecksThroughTheModeProveWhatTheModeNeeds(t *testing.T) {
	need(t, "nginx", "named", "socat", "iperf3", "ip")
	b := readyBed(t, throughTheMode)
	settled(t, b.director)
	config := settings + "services:\n"
	for _, v := range throughTheMode {
		config += v.checkedService("{type: http, path: /who, expect: 200, via: mode, interval: 2s, fast_interval: 100ms, timeout: 2s}")
	}
	d := startDirector(t, b.director, config)
	for i := range throughTheMode {
		for n := 1; n <= 2; n++ {
			b.awaitState(t, d, &throughTheMode[i], n, "up")
		}
	}
	if t.Failed() {
		return
	}
	serving(t, b, throughTheMode)

	// Without the VIP on its loopback a real server of dr still answers at its
	// own address.
	dr := &throughTheMode[0]
	rs := b.groups["rs"][0]
	run(t, rs, "ip", "address", "del", dr.vip.String()+"/32", "dev", "lo")
	b.awaitState(t, d, dr, 1, "down")
	b.awaitState(t, d, dr, 2, "up")
	run(t, b.director, "curl", "-sS", "--fail", "--max-time", "60", "http://"+dr.rip(1).String()+"/who")
	run(t, rs, "ip", "address", "add", dr.vip.String()+"/32", "dev", "lo")
	b.awaitState(t, d, dr, 1, "up")
}

func TestChecksThroughTheModePassAStrictReversePathFilter(t *testing.T) {
	need(t, "nginx", "named", "socat", "iperf3")
	list := some("dr IPv4", "tun ipip IPv4")
	b := newBed(newLab(t), list)
	b.director.Sysctl("net/ipv4/conf/all/rp_filter", "1").Sysctl("net/ipv4/conf/lan/rp_filter", "1")
	drawn(t, b.lab)
	if err := b.ownVIPs(uvsProgram(t), list); err != nil {
		t.Fatal(err)
	}
	if err := b.serve(list); err != nil {
		t.Fatal(err)
	}
	config := settings + "services:\n"
	for _, v := range list {
		config += v.checkedService("{type: tcp, via: mode, interval: 2s, fast_interval: 100ms, timeout: 2s}")
	}
	d := startDirector(t, b.director, config)
	for i := range list {
		b.awaitState(t, d, &list[i], 1, "up")
	}
	d.process.Stop()
	if v, err := b.director.SysctlValue("net/ipv4/conf/lan/rp_filter"); err != nil || v != "1" {
		t.Errorf("afterwards rp_filter is %q, %v; want 1 again", v, err)
	}
}
