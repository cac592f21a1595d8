package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/uvs-project/uvs/admin"
)

func newDrain() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Take a real server, a VIP or this director out of service gently",
		Long: `drain lets nothing new go to what is drained, and waits until few flows are
left, until nothing has come for a while, or for the deadline. A real server
gets no new flows then, a VIP or the node is withdrawn from the routers, which
were asked for other directors before (RFC 8326). It stays so until --undo.

Without a subcommand it lists what is drained.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			drains, err := listDrains(cmd.Context(), socket)
			if err != nil {
				return err
			}
			for i := range drains {
				fmt.Fprintln(cmd.OutOrStdout(), drainLine(&drains[i], time.Now()))
			}
			return nil
		},
	}
	socketFlag(cmd, &socket)
	cmd.AddCommand(newDrainNode(), newDrainVIP(), newDrainServer())
	return cmd
}

func newDrainNode() *cobra.Command {
	var c drainCommand
	cmd := &cobra.Command{
		Use: "node", Short: "Drain this director", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context(), cmd.OutOrStdout(), admin.DrainTarget{Node: true})
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.request.Exit, "exit", false, "the director stops when it is drained")
	return cmd
}

func newDrainVIP() *cobra.Command {
	var c drainCommand
	cmd := &cobra.Command{
		Use: "vip ADDRESS", Short: "Drain a VIP", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			vip, err := netip.ParseAddr(args[0])
			if err != nil {
				return usageError{fmt.Errorf("%q is not an address", args[0])}
			}
			return c.run(cmd.Context(), cmd.OutOrStdout(), admin.DrainTarget{VIP: vip})
		},
	}
	c.flags(cmd)
	return cmd
}

func newDrainServer() *cobra.Command {
	var c drainCommand
	var service string
	cmd := &cobra.Command{
		Use: "server ADDRESS[:PORT]", Short: "Drain a real server", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := netip.ParseAddrPort(args[0])
			if err != nil {
				addr, addrErr := netip.ParseAddr(args[0])
				if addrErr != nil {
					return usageError{fmt.Errorf("%q is not an address, or an address with a port as the configuration has it", args[0])}
				}
				server = netip.AddrPortFrom(addr, 0)
			}
			return c.run(cmd.Context(), cmd.OutOrStdout(), admin.DrainTarget{Service: service, Server: server})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&service, "service", "", "drain it in this service only")
	return cmd
}

// A drainCommand is what the subcommands share.
type drainCommand struct {
	socket  string
	request admin.DrainRequest
	undo    bool
	detach  bool
}

func (c *drainCommand) flags(cmd *cobra.Command) {
	socketFlag(cmd, &c.socket)
	f := cmd.Flags()
	f.DurationVar(&c.request.Deadline, "deadline", time.Minute, "wait so long at most")
	f.Int64Var(&c.request.Flows, "flows", 0, "wait until no more than so many active flows are left")
	f.DurationVar(&c.request.Quiet, "quiet", 0, "wait until no packet has come from a client for so long; 0: does not count")
	f.BoolVar(&c.undo, "undo", false, "put it back into service")
	f.BoolVar(&c.detach, "no-wait", false, "begin, and do not wait for the end")
}

func (c *drainCommand) run(ctx context.Context, w io.Writer, t admin.DrainTarget) error {
	if c.undo {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return admin.Send(ctx, c.socket, http.MethodDelete, "/v1/drains", t)
	}
	c.request.DrainTarget = t
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := admin.Send(asking, c.socket, http.MethodPost, "/v1/drains", c.request); err != nil {
		return err
	}
	if c.detach {
		return nil
	}
	return c.watch(ctx, w, t)
}

// watch shows the progress until the drain is gone.
func (c *drainCommand) watch(ctx context.Context, w io.Writer, t admin.DrainTarget) error {
	tick := time.NewTicker(lookEvery / 2)
	defer tick.Stop()
	last := ""
	for {
		drains, err := listDrains(ctx, c.socket)
		if err != nil {
			if c.request.Exit && last != "" {
				return nil // it has stopped, as it was asked to
			}
			return err
		}
		s := findDrain(drains, t)
		if s == nil {
			return errors.New("the drain was undone by somebody else")
		}
		if line := drainLine(s, time.Now()); line != last {
			last = line
			fmt.Fprintln(w, line)
		}
		if s.Phase == "gone" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func findDrain(all []admin.DrainState, t admin.DrainTarget) *admin.DrainState {
	for i := range all {
		if all[i].DrainTarget == t {
			return &all[i]
		}
	}
	return nil
}

func listDrains(ctx context.Context, socket string) (drains []admin.DrainState, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err = admin.Fetch(ctx, socket, "/v1/drains", &drains)
	return drains, err
}

// drainLine is one drain for a reader.
func drainLine(s *admin.DrainState, now time.Time) string {
	if s.Phase == "gone" {
		return fmt.Sprintf("%s: gone with %d active flows, %s", s.What, s.Flows, s.Cause)
	}
	return fmt.Sprintf("%s: leaving, %d active flows, %v until the deadline", s.What, s.Flows, max(0, s.Deadline.Sub(now).Round(time.Second)))
}
