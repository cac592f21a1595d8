package host

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// A filter is what stands in our nftables table:
//
//   - Traffic that crosses uvs is not tracked: it passes the host twice, with
//     other addresses each time, and would fill the connection table and be
//     dropped as invalid. A notrack rule does not itself turn tracking on.
//   - What belongs to a NAT reply but cannot be recognised by a policy rule gets
//     a mark that leads it into the device: fragments of the real servers, and
//     ICMP errors about packets to them, whichever router sends them.
//   - The settings of the host as they were, for a start after a crash: the
//     table lives as long as the settings do, and no longer.
type filter struct {
	vips    []netip.Addr
	lips    []netip.Prefix
	replies []Reply
	undo    savedSettings
}

// A netfilter keeps one filter in the kernel.
type netfilter struct {
	opt   Options
	table *nftables.Table
	now   *filter // what the kernel has; nil: not known
}

// undoSet is the set whose comments hold the settings to restore.
const undoSet = "restore"

func tableName(device string) string { return "uvs_" + device }

func newNetfilter(o Options) *netfilter {
	return &netfilter{opt: o, table: &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName(o.Device)}}
}

// nftBuffer holds a whole transaction, in bytes: about 100 per address, for a
// hundred thousand of them.
const nftBuffer = 16 << 20

func nftConn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(
		func(c *netlink.Conn) error { return c.SetWriteBuffer(nftBuffer) },
		func(c *netlink.Conn) error { return c.SetReadBuffer(nftBuffer) },
	))
}

// available says why there is no nftables on this host.
func (n *netfilter) available() error {
	c, err := nftConn()
	if err != nil {
		return err
	}
	_, err = c.ListTablesOfFamily(nftables.TableFamilyINet)
	return err
}

// set makes f the table in one transaction, so that no packet meets half of it.
func (n *netfilter) set(f filter) error {
	c, err := nftConn()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if n.now != nil && reflect.DeepEqual(*n.now, f) {
		_, err := c.ListTableOfFamily(n.table.Name, n.table.Family)
		if err == nil || f.empty() {
			return nil
		}
		// Gone with somebody's flush ruleset.
	}
	n.now = nil
	c.AddTable(n.table) // so that there is one to delete
	c.DelTable(n.table)
	if !f.empty() {
		if err := n.build(c, &f); err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: table inet %s: %w", n.table.Name, err)
	}
	n.now = &f
	return nil
}

func (f *filter) empty() bool {
	return len(f.vips)+len(f.lips)+len(f.replies)+len(f.undo) == 0
}

// build adds sets, chains and rules of f to the transaction.
func (n *netfilter) build(c *nftables.Conn, f *filter) error {
	c.AddTable(n.table)
	if err := n.addUndo(c, f.undo); err != nil {
		return err
	}
	raw := nftables.ChainPriorityRef(*nftables.ChainPriorityRaw)
	in := c.AddChain(&nftables.Chain{Table: n.table, Name: "prerouting", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: raw})
	out := c.AddChain(&nftables.Chain{Table: n.table, Name: "output", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: raw})
	b := &ruleBuilder{conn: c, table: n.table, mark: n.opt.Mark, mask: n.opt.MarkMask}
	b.rule(in, iifname(n.opt.Device), notrack())
	for _, family := range [...]uint8{packet.IPv4, packet.IPv6} {
		if err := b.family(in, out, layouts[family], f.of(family)); err != nil {
			return err
		}
	}
	return b.err
}

// of is the part of f that is of the family.
func (f *filter) of(family uint8) filter {
	var part filter
	for _, v := range f.vips {
		if familyOf(v) == family {
			part.vips = append(part.vips, v)
		}
	}
	for _, p := range f.lips {
		if familyOf(p.Addr()) == family {
			part.lips = append(part.lips, p)
		}
	}
	for _, r := range f.replies {
		if familyOf(r.Addr) == family {
			part.replies = append(part.replies, r)
		}
	}
	return part
}

func (n *netfilter) addUndo(c *nftables.Conn, undo savedSettings) error {
	set := &nftables.Set{Table: n.table, Name: undoSet, KeyType: nftables.TypeMark, KeyByteOrder: binaryutil.NativeEndian}
	var elements []nftables.SetElement
	for i, u := range undo {
		elements = append(elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Comment: u.String()})
	}
	return c.AddSet(set, elements)
}

// readUndo reads the settings that an earlier run of the device has left.
func (n *netfilter) readUndo() (savedSettings, error) {
	c, err := nftConn()
	if err != nil {
		return nil, err
	}
	set, err := c.GetSetByName(n.table, undoSet)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	elements, err := c.GetSetElements(set)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(elements, func(a, b nftables.SetElement) int {
		return int(binaryutil.NativeEndian.Uint32(a.Key)) - int(binaryutil.NativeEndian.Uint32(b.Key))
	})
	var undo savedSettings
	for _, e := range elements {
		u, err := parseChangedSetting(e.Comment)
		if err != nil {
			return nil, err
		}
		undo = append(undo, u)
	}
	return undo, nil
}

// remove removes the whole table, if it is there.
func (n *netfilter) remove() error {
	return n.set(filter{})
}

// leftTables lists the devices whose tables an uvs has made.
func leftTables() ([]string, error) {
	c, err := nftConn()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, t := range tables {
		if device, ok := strings.CutPrefix(t.Name, tableName("")); ok {
			devices = append(devices, device)
		}
	}
	return devices, nil
}

// String is the form of a setting in the table's comments.
func (c changedSetting) String() string {
	return fmt.Sprintf("%s was %d, uvs set %d", c.setting, c.old, c.ours)
}

func parseChangedSetting(s string) (c changedSetting, err error) {
	name, rest, _ := strings.Cut(s, " ")
	parts := strings.Split(name, ".")
	if len(parts) != 5 || parts[0] != "net" {
		return c, fmt.Errorf("a comment %q that is not ours", s)
	}
	c.group, c.iface, c.name = parts[2], strings.ReplaceAll(parts[3], "/", "."), parts[4]
	if _, err := fmt.Sscanf(parts[1], "ipv%d", &c.family); err != nil {
		return c, fmt.Errorf("a comment %q that is not ours", s)
	}
	if _, err := fmt.Sscanf(rest, "was %d, uvs set %d", &c.old, &c.ours); err != nil {
		return c, fmt.Errorf("a comment %q that is not ours", s)
	}
	return c, nil
}

// warnOfFirewall says which chains of others drop forwarded packets that no
// rule of theirs accepts, as Docker's do. No table of ours can overrule them.
func (h *Host) warnOfFirewall() {
	if h.nft == nil {
		return
	}
	c, err := nftConn()
	if err != nil {
		return
	}
	chains, err := c.ListChains()
	if err != nil {
		h.log.Debug("cannot list the chains of nftables", "error", err)
		return
	}
	for _, chain := range chains {
		if forwardDrops(chain) {
			h.log.Warn("a firewall drops forwarded packets that its rules do not accept: let it accept those into and out of the device",
				"table", chain.Table.Name, "chain", chain.Name, "device", h.opt.Device,
				"mend", fmt.Sprintf("iptables -I FORWARD -i %[1]s -j ACCEPT; iptables -I FORWARD -o %[1]s -j ACCEPT (ip6tables likewise)", h.opt.Device))
		}
	}
}

func forwardDrops(c *nftables.Chain) bool {
	return c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Type == nftables.ChainTypeFilter &&
		c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
}
