package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// kernelSettings reads settings from /proc/sys and writes them there, or,
// where that is read-only as in a container, by netlink as far as it can.
type kernelSettings struct {
	root string // of /proc/sys
	nl   *netlink.Handle
	raw  map[int]*nl.SocketHandle
}

func (k kernelSettings) read(s setting) (int, error) {
	b, err := os.ReadFile(filepath.Join(k.root, s.path()))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func (k kernelSettings) write(s setting, value int) error {
	err := writeNumber(filepath.Join(k.root, s.path()), value)
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if s.group == "neigh" && s.name == "proxy_delay" {
		return k.writeProxyDelay(s, value)
	}
	index, ok := inetConf[s.name]
	if s.family != packet.IPv4 || s.group != "conf" || s.iface == "all" || s.iface == "default" || !ok {
		return err
	}
	if err := k.writeInetConf(s.iface, index, value); err != nil {
		return err
	}
	// The kernel ignores numbers that it does not know.
	if now, err := k.read(s); err != nil || now != value {
		return fmt.Errorf("netlink left it at %d", now)
	}
	return nil
}

// SetConf gives net.ipv4.conf.IFACE.NAME a value in the namespace of the calling
// thread. Where /proc/sys is read-only it takes netlink, which can set an
// interface's own rp_filter, arp_announce, arp_ignore, forwarding and
// accept_local, but nothing of "all"; then the error is unix.EROFS or
// fs.ErrPermission.
func SetConf(iface, name string, value int) error {
	k := kernelSettings{root: "/proc/sys", nl: &netlink.Handle{}}
	return k.write(conf(packet.IPv4, iface, name), value)
}

// writeNumber does not create the file, unlike os.WriteFile, whose error for a
// device that went away would be about that.
func writeNumber(name string, value int) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(value))
	return errors.Join(err, f.Close())
}

// inetConf numbers the settings of net.ipv4.conf (IPV4_DEVCONF_* of linux/ip.h).
var inetConf = map[string]uint16{
	"forwarding":   1,
	"rp_filter":    8,
	"arp_announce": 18,
	"arp_ignore":   19,
	"accept_local": 23,
}

const iflaInetConf = 1 // IFLA_INET_CONF of linux/if_link.h

// writeInetConf sets one number of net.ipv4.conf.IFACE by RTM_SETLINK.
func (k kernelSettings) writeInetConf(iface string, index uint16, value int) error {
	link, err := k.nl.LinkByName(iface)
	if err != nil {
		return err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(iflaInetConf, nil).AddRtAttr(int(index), nl.Uint32Attr(uint32(value)))
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.Sockets = k.raw
	req.AddData(msg)
	req.AddData(spec)
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
