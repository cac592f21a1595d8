package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/uvs-project/uvs/admin"
)

func newExplain() *cobra.Command {
	var socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain CLIENT:PORT VIP:PORT/PROTOCOL",
		Short: "Say what would become of a packet, and why",
		Long: `explain asks the running director what it would do with a packet: of its flow
where there is one, else with the first of a connection. It decides by the code
that decides for packets, and changes and counts nothing. A packet of a real
server's is asked for by its own addresses, as it comes to the director.`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := admin.ParseExplain(args[0], args[1])
			if err != nil {
				return usageError{err}
			}
			var x admin.Explained
			return ask(cmd, socket, q.Path(), asJSON, &x, func(w io.Writer) error { return printExplained(w, &x) })
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the director's answer as it came")
	return cmd
}

func printExplained(w io.Writer, x *admin.Explained) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "verdict\t%s, %s: %s\n", x.Verdict, x.Reason, x.Means)
	for _, note := range x.Notes {
		fmt.Fprintf(t, "but\t%s\n", note)
	}
	fmt.Fprintf(t, "service\t%s\n", cmp.Or(x.Service, "none"))
	if f := x.Flow; f != nil && x.Known {
		way := "a request"
		if x.Reply {
			way = "a reply"
		}
		fmt.Fprintf(t, "flow\t%s of %v to %v, %s, expires in %v, runs: %s\n", way, f.Client, f.VIP, f.State, seconds(f.Expires), f.Runs)
	} else {
		fmt.Fprintf(t, "flow\tnone\n")
	}
	if f := x.Flow; f != nil {
		fmt.Fprintf(t, "real server\t%v by %s: %s\n", f.RealServer, f.Mode, x.Chosen)
	}
	for _, way := range x.Ways {
		fmt.Fprintf(t, "%s\t%s\n", way.Direction, way.Rewrite)
		fmt.Fprintf(t, "\tleave %s\n", way.Egress)
		if way.Lane {
			fmt.Fprintf(t, "\tin the fast lane\n")
		} else {
			fmt.Fprintf(t, "\ton the road: %s\n", way.WhyNot)
		}
	}
	if len(x.RealServers) > 0 {
		fmt.Fprintln(t, "\nreal server\tweight\tstate\tactive\tinactive\tnew flows")
	}
	for i := range x.RealServers {
		c := &x.RealServers[i]
		takes := cmp.Or(c.Barred, "yes")
		if c.Chosen {
			takes += ", this one"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%s\n", c.Address, c.Weight, c.State, c.ActiveFlows, c.InactiveFlows, takes)
	}
	return t.Flush()
}
