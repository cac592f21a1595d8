package realserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A setting is a value of an interface, or of all, under
// /proc/sys/net/ipv4/conf.
type setting struct {
	link  string // name of the interface or "all"
	name  string
	value int // at least this; the kernel takes the higher of "all" and the interface's own
}

// arpSettings keep the host silent about VIPs on its loopback: it answers ARP
// only for addresses of the interface that was asked (arp_ignore 1), and asks
// only with such addresses (arp_announce 2), also when the packet to be sent
// has the VIP as source. IPv6 needs neither: neighbour discovery answers only
// for the addresses of the interface anyway.
var arpSettings = []setting{
	{link: "all", name: "arp_ignore", value: 1},
	{link: "all", name: "arp_announce", value: 2},
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
	err := os.WriteFile(s.path(), []byte(strconv.Itoa(s.value)), 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("/proc/sys may not be written: set it from outside with sysctl -w %s=%d: %w", s.sysctl(), s.value, err)
	}
	return err
}

// sysctl is the setting's name for sysctl(8).
func (s setting) sysctl() string { return "net.ipv4.conf." + s.link + "." + s.name }
