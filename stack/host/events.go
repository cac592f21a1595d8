package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// eventBuffer is the receive buffer, in bytes, of the socket that the kernel
// tells changes to: some thousands of them. What overflows it is read anew.
const eventBuffer = 1 << 20

// An event is a change on the host.
type event struct {
	neighbour *netlink.NeighUpdate // of one neighbour, and nothing else
	routes    bool                 // routes, rules or devices are to be read anew
	lost      bool                 // something of ours may be gone, or a device has come
}

// subscribe opens the socket on which the kernel tells every change.
func subscribe() (*nl.NetlinkSocket, error) {
	s, err := nl.SubscribeAt(netns.None(), netns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, fmt.Errorf("netlink: subscribe: %w", err)
	}
	// Beyond net.core.rmem_max only with NET_ADMIN over the host; less means reading anew more often.
	if s.SetReceiveBufferSize(eventBuffer, true) != nil {
		if err := s.SetReceiveBufferSize(eventBuffer, false); err != nil {
			s.Close()
			return nil, fmt.Errorf("netlink: receive buffer: %w", err)
		}
	}
	return s, nil
}

// subscribeFilter opens the socket on which the kernel tells every change of
// nftables.
func subscribeFilter() (*nl.NetlinkSocket, error) {
	s, err := nl.SubscribeAt(netns.None(), netns.None(), unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, fmt.Errorf("netlink: subscribe to nftables: %w", err)
	}
	return s, nil
}

// follow sends the changes that s tells to events until s is closed.
func (h *Host) follow(ctx context.Context, s *nl.NetlinkSocket, classify func(kind uint16, data []byte) event, events chan<- event) {
	send := func(e event) bool {
		select {
		case events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		msgs, _, err := s.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			if !send(event{routes: true, lost: true}) {
				return
			}
			continue
		case err != nil:
			if ctx.Err() == nil {
				h.log.Error("the kernel tells no more changes of the host", "error", err)
			}
			return
		}
		for _, m := range msgs {
			if e := classify(m.Header.Type, m.Data); e != (event{}) && !send(e) {
				return
			}
		}
	}
}

// classify says what a message of the kernel means for us.
func (h *Host) classify(kind uint16, data []byte) event {
	switch kind {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, err := netlink.NeighDeserialize(data)
		if err != nil || n.Family != unix.AF_INET && n.Family != unix.AF_INET6 {
			return event{}
		}
		return event{neighbour: &netlink.NeighUpdate{Type: kind, Neigh: *n}}
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return event{routes: true, lost: true}
	case unix.RTM_NEWRULE:
		return event{routes: true}
	case unix.RTM_DELRULE:
		return event{routes: true, lost: true}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok := parseRoute(data)
		switch {
		case !ok:
		case r.table == h.opt.Table || r.table == h.opt.Table+1:
			return event{lost: kind == unix.RTM_DELROUTE}
		case r.table == unix.RT_TABLE_MAIN || r.table == unix.RT_TABLE_LOCAL:
			return event{routes: true}
		}
	}
	return event{}
}

// classifyFilter picks the removal of our table. Replacing it by ourselves
// looks the same; then the repair finds nothing to do.
func (h *Host) classifyFilter(kind uint16, data []byte) event {
	const nfgenmsg, tableName = 4, 1 // length of struct nfgenmsg, NFTA_TABLE_NAME
	if kind != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE || len(data) < nfgenmsg {
		return event{}
	}
	ours := false
	eachAttr(data[nfgenmsg:], func(kind uint16, v []byte) {
		ours = ours || kind == tableName && nl.BytesToString(v) == h.nft.table.Name
	})
	return event{lost: ours}
}
