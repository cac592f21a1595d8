package host

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// removeOrphans removes what is left of an uvs that ended without undoing it:
// its first rule names a device that no longer exists.
func (h *Host) removeOrphans() error {
	rules, err := listRules(h.nl)
	if err != nil {
		return err
	}
	var errs []error
	for _, first := range rules {
		if first.Protocol != h.opt.Protocol || first.IifName == "" || !first.Invert {
			continue
		}
		if _, err := h.nl.LinkByName(first.IifName); !isNoLink(err) {
			continue
		}
		end := first.Priority + prefEnd
		for _, r := range rules {
			if r.Protocol != h.opt.Protocol || r.Family != first.Family || r.Priority < first.Priority || r.Priority > end {
				continue
			}
			own := ruleFrom(&r)
			if err := h.nl.RuleDel(h.netlinkRule(own)); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove policy rule of an earlier run: %w: ip %s rule del %s", err, familyFlag(own.family), own))
			}
		}
		h.log.Info("removed the policy rules that an earlier run left", "device", first.IifName, "from", first.Priority, "to", end)
	}
	return errors.Join(append(errs, h.removeOrphanTables())...)
}

// removeOrphanTables restores the settings and removes the nftables tables of
// runs whose device no longer exists.
func (h *Host) removeOrphanTables() error {
	if h.nft == nil {
		return nil
	}
	devices, err := leftTables()
	if err != nil {
		return fmt.Errorf("nftables: list tables: %w", err)
	}
	var errs []error
	for _, device := range devices {
		if _, err := h.nl.LinkByName(device); !isNoLink(err) {
			continue
		}
		left := newNetfilter(Options{Device: device})
		undo, err := left.readUndo()
		if err == nil {
			err = h.restore(undo)
		}
		if err = errors.Join(err, left.remove()); err != nil {
			errs = append(errs, fmt.Errorf("table inet %s of an earlier run: %w", left.table.Name, err))
			continue
		}
		h.log.Info("restored the settings that an earlier run left", "device", device, "settings", len(undo))
	}
	return errors.Join(errs...)
}

func isNoLink(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// checkForeign refuses to share numbers with anybody else.
func (h *Host) checkForeign() error {
	rules, err := listRules(h.nl)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Priority < h.opt.Preference || r.Priority >= h.opt.Preference+numPrefs {
			continue
		}
		own := ruleFrom(&r)
		if r.Protocol != h.opt.Protocol {
			return fmt.Errorf("policy rule %q of another program stands among the preferences %d to %d that uvs wants: set device.table to another number, or ip %s rule del %s",
				own, h.opt.Preference, h.opt.Preference+prefEnd, familyFlag(own.family), own)
		}
		if r.IifName != "" && r.IifName != h.opt.Device {
			return fmt.Errorf("the rule preferences %d to %d are in use by another uvs with device %s: stop it, or run this one in a network namespace of its own",
				h.opt.Preference, h.opt.Preference+prefEnd, r.IifName)
		}
	}
	routes, err := h.tableRoutes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.protocol != h.opt.Protocol {
			return fmt.Errorf("routing table %d, which uvs wants for itself, has a route to %v of another program: set device.table to another number", r.table, r.dst)
		}
	}
	return nil
}
