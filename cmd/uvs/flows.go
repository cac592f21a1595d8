package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/uvs-project/uvs/admin"
)

func newFlows() *cobra.Command {
	var socket, client, vip, server string
	var q admin.FlowQuery
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List flows, and where they run",
		Long: `flows lists the flows of the running director that fit all that is asked for:
client, VIP and real server are ADDRESS, ADDRESS:PORT or NETWORK/BITS. A flow
runs on the road, through uvs, or in the fast lane: then uvs does not see its
packets, but for those that open or end a connection. requests and replies say
that only these run there.

The flags: direct, the real server answers the client directly; persistent, the
client is bound to the real server; pinned, a health check's; removed, the real
server is not in the configuration any more.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, p := range []struct {
				flag, value string
				place       *admin.Place
			}{{"client", client, &q.Client}, {"vip", vip, &q.VIP}, {"server", server, &q.RealServer}} {
				if p.value == "" {
					continue
				}
				var err error
				if *p.place, err = admin.ParsePlace(p.value); err != nil {
					return usageError{fmt.Errorf("--%s: %w", p.flag, err)}
				}
			}
			if err := q.Check(); err != nil {
				return usageError{fmt.Errorf("--%w", err)}
			}
			var list admin.FlowList
			return ask(cmd, socket, q.Path(), asJSON, &list, func(w io.Writer) error { return printFlows(w, &list, &q) })
		},
	}
	socketFlag(cmd, &socket)
	f := cmd.Flags()
	f.StringVar(&client, "client", "", "only those of this client")
	f.StringVar(&vip, "vip", "", "only those to this VIP")
	f.StringVar(&server, "server", "", "only those to this real server")
	f.StringVar(&q.Service, "service", "", "only those of this service")
	f.StringVar(&q.Protocol, "protocol", "", "only tcp, udp or sctp")
	f.StringVar(&q.State, "state", "", "only those in this state, such as established")
	f.StringVar(&q.Runs, "runs", "", "only those that run on the road, or in the lane")
	f.BoolVar(&q.Templates, "templates", false, "persistent clients instead of flows")
	f.IntVar(&q.Limit, "limit", admin.DefaultFlows, "list so many at most")
	f.BoolVar(&asJSON, "json", false, "print the director's answer as it came")
	return cmd
}

// printFlows sorts the list and prints it.
func printFlows(w io.Writer, list *admin.FlowList, q *admin.FlowQuery) error {
	slices.SortFunc(list.Flows, func(a, b admin.Flow) int {
		return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Protocol, b.Protocol), a.Client.Compare(b.Client))
	})
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	last, what := "runs", "flows"
	if q.Templates {
		last, what = "flows", "persistent clients"
	}
	fmt.Fprintf(t, "protocol\tclient\tVIP\treal server\tlocal\tmode\tstate\texpires\t%s\tflags\n", last)
	for i := range list.Flows {
		f := &list.Flows[i]
		local := "-"
		if f.Local.IsValid() {
			local = f.Local.String()
		}
		runs := f.Runs
		if q.Templates {
			runs = fmt.Sprint(f.Flows)
		}
		vip := f.VIP.String()
		if f.VIP.Addr().IsUnspecified() {
			vip = "service " + f.Service // whichever of its listens
		}
		fmt.Fprintf(t, "%s\t%v\t%s\t%v\t%s\t%s\t%s\t%v\t%s\t%s\n", cmp.Or(f.Protocol, "-"), f.Client, vip, f.RealServer, local, f.Mode, f.State,
			seconds(f.Expires), runs, cmp.Or(strings.Join(f.Flags, ","), "-"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := list.Matched - len(list.Flows); more > 0 {
		fmt.Fprintf(w, "and %d more of %d %s; --limit lists more, the other flags fewer\n", more, list.Matched, what)
		return nil
	}
	fmt.Fprintf(w, "%d %s\n", list.Matched, what)
	return nil
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}
