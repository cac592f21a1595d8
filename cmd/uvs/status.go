package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/announce"
	"github.com/uvs-project/uvs/config"
)

// askTimeout bounds a question to a director on this machine.
const askTimeout = 10 * time.Second

// socketFlag adds --socket, where a command finds the director.
func socketFlag(cmd *cobra.Command, socket *string) {
	def := config.Default().Admin.Socket
	if env := os.Getenv("UVS_SOCKET"); env != "" {
		def = env
	}
	cmd.Flags().StringVar(socket, "socket", def, "the director's admin.socket; UVS_SOCKET sets the default")
}

// ask fetches what the director says at path. With asJSON that is printed as it
// came, else it is read into answer, which print prints.
func ask(cmd *cobra.Command, socket, path string, asJSON bool, answer any, print func(io.Writer) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
	defer cancel()
	if asJSON {
		var raw json.RawMessage
		if err := admin.Fetch(ctx, socket, path, &raw); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", raw)
		return err
	}
	if err := admin.Fetch(ctx, socket, path, answer); err != nil {
		return err
	}
	return print(cmd.OutOrStdout())
}

func newStatus() *cobra.Command {
	var socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running director does",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s admin.State
			return ask(cmd, socket, "/v1/state", asJSON, &s, func(w io.Writer) error { return printState(w, &s, time.Now()) })
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the director's answer as it came")
	return cmd
}

func printState(w io.Writer, s *admin.State, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "uvs %s on %s, up %v\n", s.Version, s.Node, now.Sub(s.Started).Round(time.Second))
	fmt.Fprintf(t, "configuration\t%s, read %s\n", s.Config.File, s.Config.Loaded.Format(time.RFC3339))
	if s.Config.LastError != "" {
		fmt.Fprintf(t, "last reload failed\t%s\n", strings.ReplaceAll(s.Config.LastError, "\n", "\n\t"))
	}
	fmt.Fprintf(t, "device\t%s, %d queues, offloads %s, egress %s\n", s.Device.Name, s.Device.Queues, s.Device.Offloads, s.Device.Egress)
	fmt.Fprintf(t, "flows\t%d of %d; %d created, %d expired, %d evicted, %d ended with their real server\n", s.Flows.Now, s.Flows.Limit, s.Flows.Created, s.Flows.Expired, s.Flows.Evicted, s.Flows.Ended)
	if s.Flows.Resets+s.Flows.ResetsLost > 0 {
		fmt.Fprintf(t, "resets\t%d sent to the ends of connections, %d lost\n", s.Flows.Resets, s.Flows.ResetsLost)
	}
	if on := defences(&s.Defence); on != "" {
		fmt.Fprintf(t, "defence\t%s; %d flows dropped\n", on, s.Flows.Dropped)
	}
	fmt.Fprintf(t, "fast lane\t%s; %d flows\n", s.Device.FastLane, s.Flows.InLane)
	r := &s.Total.Rates
	fmt.Fprintf(t, "per second\t%d flows; %d packets and %d bytes in, %d and %d out\n",
		r.FlowsOpened, r.Requests.Packets, r.Requests.Bytes, r.Replies.Packets, r.Replies.Bytes)
	fmt.Fprintf(t, "lookups\t%d hit, %d missed and could open a flow, %d missed otherwise\n", s.Lookups.Hit, s.Lookups.MissSYN, s.Lookups.MissNonSYN)
	p := &s.Packets
	fmt.Fprintf(t, "packets\t%d received, %d sent, %d passed up, %d returned, %d dropped\n", p.Received, p.Sent, p.Passed, p.Returned, p.Dropped)
	fmt.Fprintf(t, "ways out\t%d by link, %d by kernel\n", p.ByLink, p.ByKernel)
	for _, reason := range slices.Sorted(maps.Keys(s.Drops)) {
		fmt.Fprintf(t, "dropped\t%d %s\n", s.Drops[reason], reason)
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Lost)) {
		fmt.Fprintf(t, "lost on the way out\t%d %s\n", s.Lost[reason], reason)
	}
	for i := range s.Drains {
		fmt.Fprintf(t, "drained\t%s\n", drainLine(&s.Drains[i], now))
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", warning)
	}
	if len(s.BGP) > 0 {
		printPeers(t, s.BGP, now)
	}
	for _, v := range s.VIPs {
		switch {
		case !v.Up:
			fmt.Fprintf(t, "VIP down\t%s: %s\n", v.Address, v.Reason)
		case v.Level != announce.Whole.String():
			fmt.Fprintf(t, "VIP %s\t%s: %s\n", v.Level, v.Address, v.Reason)
		}
	}
	for i := range s.Services {
		printService(t, &s.Services[i], now)
	}
	return t.Flush()
}

func printPeers(t *tabwriter.Writer, peers []admin.PeerState, now time.Time) {
	fmt.Fprintln(t, "\nBGP peer\tAS\tstate\tfor\tlost\tBFD\tprefixes\trefused")
	for i := range peers {
		p := &peers[i]
		fmt.Fprintf(t, "%s\t%d\t%s\t%v\t%d\t%s\t%d\t%d\n", p.Peer, p.AS, p.State, now.Sub(p.Since).Round(time.Second), p.Flaps,
			cmp.Or(p.BFD, "-"), p.Announced, p.Refused)
	}
	for i := range peers {
		if p := &peers[i]; p.LastError != "" && p.State != "established" {
			fmt.Fprintf(t, "%s: %s\n", p.Peer, p.LastError)
		}
	}
}

func printService(t *tabwriter.Writer, s *admin.ServiceState, now time.Time) {
	fmt.Fprintf(t, "\nservice %s on %s\n", s.Name, strings.Join(s.Listen, ", "))
	fmt.Fprintln(t, "real server\tmode\tweight\tstate\tactive\tinactive\tpersistent\tflows\tpackets in\tbytes in\tpackets out\tbytes out\tflows/s\tpackets/s in\tpackets/s out")
	for _, rs := range s.RealServers {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", rs.Address, rs.Mode, rs.Weight, rs.State,
			rs.ActiveFlows, rs.InactiveFlows, rs.Persistent, rs.FlowsOpened, rs.Requests.Packets, rs.Requests.Bytes, rs.Replies.Packets, rs.Replies.Bytes,
			rs.Rates.FlowsOpened, rs.Rates.Requests.Packets, rs.Rates.Replies.Packets)
	}
	for _, rs := range s.RealServers {
		if rs.Overloaded {
			fmt.Fprintf(t, "%s gets no new flows: it has had its max_flows, %d\n", rs.Address, rs.MaxFlows)
		}
		if rs.Refused+rs.Unanswered > 0 {
			fmt.Fprintf(t, "%s has had %d connections refused and %d not answered\n", rs.Address, rs.Refused, rs.Unanswered)
		}
		switch h := rs.Health; {
		case h == nil:
		case !h.Ejected.IsZero():
			fmt.Fprintf(t, "%s is %s for %v and another %v: %s\n", rs.Address, rs.State, now.Sub(h.Since).Round(time.Second), h.Ejected.Sub(now).Round(time.Second), h.Cause)
		case rs.State != "up":
			fmt.Fprintf(t, "%s is %s for %v: %s\n", rs.Address, rs.State, now.Sub(h.Since).Round(time.Second), cmp.Or(h.LastError, h.Cause))
		case h.LastError != "":
			fmt.Fprintf(t, "%s is up, but its latest check failed: %s\n", rs.Address, h.LastError)
		}
	}
}

// defences names those that are on, and why.
func defences(d *admin.DefenceState) string {
	var on []string
	if d.DropEntry {
		on = append(on, "drop_entry")
	}
	if d.DropPacket > 0 {
		on = append(on, fmt.Sprintf("drop_packet 1 in %d", d.DropPacket))
	}
	if d.SecureTCP {
		on = append(on, "secure_tcp")
	}
	s := strings.Join(on, ", ")
	if s != "" && d.FewFlows {
		s += "; the flow table is nearly full"
	}
	if s != "" && d.LowMemory {
		s += "; memory is low"
	}
	return s
}
