package realserver

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// A fakeKernel writes down what it is asked for. It has the tunnel types of
// its modules, whose fallback devices come with them.
type fakeKernel struct {
	modules map[string]bool
	links   map[string]netlink.Link
	asked   []string
}

func newFakeKernel(modules ...string) *fakeKernel {
	k := &fakeKernel{modules: map[string]bool{}, links: map[string]netlink.Link{}}
	for _, m := range modules {
		k.modules[m] = true
	}
	return k
}

func (k *fakeKernel) ask(format string, a ...any) {
	k.asked = append(k.asked, fmt.Sprintf(format, a...))
}

func (k *fakeKernel) LinkAdd(l netlink.Link) error {
	if !k.modules[l.Type()] {
		return unix.EOPNOTSUPP
	}
	if k.links[l.Attrs().Name] != nil {
		return unix.EEXIST
	}
	k.ask("add %s %s", l.Type(), l.Attrs().Name)
	k.links[l.Attrs().Name] = l
	if l.Type() == "sit" {
		k.links["sit0"] = &netlink.Sittun{LinkAttrs: named("sit0")}
	}
	return nil
}

func (k *fakeKernel) LinkDel(l netlink.Link) error {
	k.ask("del %s", l.Attrs().Name)
	delete(k.links, l.Attrs().Name)
	return nil
}

func (k *fakeKernel) LinkByName(name string) (netlink.Link, error) {
	if l := k.links[name]; l != nil {
		return l, nil
	}
	return nil, netlink.LinkNotFoundError{}
}

func (k *fakeKernel) LinkSetUp(l netlink.Link) error {
	k.ask("up %s", l.Attrs().Name)
	l.Attrs().Flags |= net.FlagUp
	return nil
}

func (k *fakeKernel) LinkSetDown(l netlink.Link) error {
	k.ask("down %s", l.Attrs().Name)
	l.Attrs().Flags &^= net.FlagUp
	return nil
}

func (k *fakeKernel) LinkSetAlias(l netlink.Link, alias string) error {
	k.ask("alias %s %q", l.Attrs().Name, alias)
	l.Attrs().Alias = alias
	return nil
}

func (k *fakeKernel) FouAdd(f netlink.Fou) error {
	if !k.modules["fou"] {
		return unix.ENOENT
	}
	k.ask("fou add family %d port %d type %d", f.Family, f.Port, f.EncapType)
	return nil
}

func (k *fakeKernel) FouDel(f netlink.Fou) error {
	k.ask("fou del family %d port %d", f.Family, f.Port)
	return nil
}

// everything are the modules of a kernel that can unpack every tunnel.
var everything = []string{"ipip", "ip6tnl", "sit", "gre", "ip6gre", "fou"}

func without(module string) []string {
	var list []string
	for _, m := range everything {
		if m != module {
			list = append(list, m)
		}
	}
	return list
}

func TestKernelTunnel(t *testing.T) {
	up := []string{
		"add ipip uvs-ipip", "up uvs-ipip", "add ip6tnl uvs-ip6tnl", "up uvs-ip6tnl",
		"add sit uvs-sit", "del uvs-sit", `alias sit0 "uvs-realserver"`, "up sit0",
	}
	down := []string{"down sit0", `alias sit0 ""`, "del uvs-ip6tnl", "del uvs-ipip"}
	tests := []struct {
		name    string
		modules []string
		tunnel  packet.EncapKind
		setup   []string // what is asked to set up
		ports   []netlink.Fou
		undo    []string // and to take it back
		lacks   bool     // the kernel cannot do it: what was done is taken back by the caller
	}{
		{name: "ipip takes one device per outer family and sit0 for 6 in 4", modules: everything, tunnel: packet.IPIP, setup: up, undo: down},
		{name: "gue opens a port in front of the devices of ipip", modules: everything, tunnel: packet.GUE, ports: fous(6080),
			setup: append(up[:len(up):len(up)], "fou add family 2 port 6080 type 2", "fou add family 10 port 6080 type 2"),
			undo:  append([]string{"fou del family 10 port 6080", "fou del family 2 port 6080"}, down...)},
		{name: "gre takes one device per outer family", modules: everything, tunnel: packet.GRE,
			setup: []string{"add gre uvs-gre", "up uvs-gre", "add ip6gre uvs-ip6gre", "up uvs-ip6gre"},
			undo:  []string{"del uvs-ip6gre", "del uvs-gre"}},
		{name: "a kernel without any tunnel is asked for nothing more", tunnel: packet.IPIP, lacks: true},
		{name: "a kernel without sit keeps nothing of ipip", modules: without("sit"), tunnel: packet.IPIP, lacks: true,
			setup: up[:4], undo: []string{"del uvs-ip6tnl", "del uvs-ipip"}},
		{name: "a kernel without fou keeps nothing of gue", modules: without("fou"), tunnel: packet.GUE, ports: fous(6080), lacks: true, setup: up, undo: down},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newFakeKernel(tt.modules...)
			done := &undoStack{}
			_, err := addKernelTunnel(k, tt.tunnel, tt.ports, done)
			if tt.lacks != errors.Is(err, errNoKernelTunnel) || !tt.lacks && err != nil {
				t.Fatalf("error %v, want no such tunnel: %v", err, tt.lacks)
			}
			if diff := cmp.Diff(tt.setup, k.asked); diff != "" {
				t.Errorf("setup asked (-want +got):\n%s", diff)
			}
			k.asked = nil
			if err := done.all(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.undo, k.asked); diff != "" {
				t.Errorf("undo asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKernelTunnelAgain(t *testing.T) {
	k := newFakeKernel(everything...)
	if _, err := addKernelTunnel(k, packet.IPIP, nil, &undoStack{}); err != nil {
		t.Fatal(err)
	}
	k.asked = nil
	done := &undoStack{}
	if _, err := addKernelTunnel(k, packet.IPIP, nil, done); err != nil {
		t.Fatal(err)
	}
	if err := done.all(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"up uvs-ipip", "up uvs-ip6tnl"}, k.asked); diff != "" {
		t.Errorf("a second setup asked (-want +got):\n%s", diff)
	}
	k.asked = nil
	for _, link := range ourKernelDevices(k) {
		if err := removeKernelDevice(k, link); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"del uvs-ipip", "del uvs-ip6tnl", "down sit0", `alias sit0 ""`}, k.asked); diff != "" {
		t.Errorf("undo in another run asked (-want +got):\n%s", diff)
	}
}

func TestKernelTunnelLeavesOthersAlone(t *testing.T) {
	k := newFakeKernel(everything...)
	k.links["sit0"] = &netlink.Sittun{LinkAttrs: netlink.LinkAttrs{Name: "sit0", Flags: net.FlagUp, Alias: "mine"}}
	done := &undoStack{}
	if _, err := addKernelTunnel(k, packet.IPIP, nil, done); err != nil {
		t.Fatal(err)
	}
	if err := done.all(); err != nil {
		t.Fatal(err)
	}
	if sit := k.links["sit0"].Attrs(); sit.Flags&net.FlagUp == 0 || sit.Alias != "mine" {
		t.Errorf("sit0, which was up before, has now flags %v and alias %q", sit.Flags, sit.Alias)
	}
}
