package realserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/stack/host"
)

// A setting is a value of an interface, or of all, under
// /proc/sys/net/ipv4/conf.
type setting struct {
	link  string // name of the interface or "all"
	name  string
	value int // at least this; the kernel takes the higher of "all" and the interface's own
}

// arpSettings, set for all interfaces or, where that cannot be, for each that
// can ask for addresses, keep the host silent about VIPs on its loopback: it answers ARP
// only for addresses of the interface that was asked (arp_ignore 1), and asks
// only with such addresses (arp_announce 2), also when the packet to be sent
// has the VIP as source. IPv6 needs neither: neighbour discovery answers only
// for the addresses of the interface anyway.
var arpSettings = []setting{
	{link: "all", name: "arp_ignore", value: 1},
	{link: "all", name: "arp_announce", value: 2},
}

// askingLinks are the names of the interfaces on which there is ARP.
func askingLinks() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Attrs().Flags&(net.FlagBroadcast|net.FlagLoopback) == net.FlagBroadcast {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// looseSource is what a tunnel device needs: packets come out of it from
// clients whose route leads through another interface. Loose is the highest
// value, so it wins over a strict "all", and no other interface is touched.
func looseSource(link string) setting { return setting{link: link, name: "rp_filter", value: 2} }

func (s setting) path() string { return "/proc/sys/net/ipv4/conf/" + s.link + "/" + s.name }

// key is how the setting is called in the record.
func (s setting) key() string { return s.link + "/" + s.name }

// current is the value that the kernel has now.
func (s setting) current() (int, error) {
	b, err := os.ReadFile(s.path())
	if err != nil {
		return 0, fmt.Errorf("read setting %s: %w", s.sysctl(), err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// write gives the setting its value.
func (s setting) write() error {
	err := host.SetConf(s.link, s.name, s.value)
	if readOnly(err) {
		return fmt.Errorf("/proc/sys may not be written: start the container with --sysctl %s=%d, or where it can be written: sysctl -w %[1]s=%d: %w", s.sysctl(), s.value, err)
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", s.sysctl(), err)
	}
	return nil
}

// readOnly says whether err means that a setting is out of our reach.
func readOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}

// sysctl is the setting's name for sysctl(8).
func (s setting) sysctl() string { return "net.ipv4.conf." + s.link + "." + s.name }
