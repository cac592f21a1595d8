package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/realserver"
)

// newRealserver is `uvs realserver`.
func newRealserver() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "realserver",
		Short: "Make this host a real server for mode dr or tun",
		Long: `Make this host a real server for a mode whose real servers own the VIP: put
the VIP on lo, keep the host silent about it on the LAN and, for tun, unpack
what the director sends. Real servers of nat, fullnat and proxy need none of it.`,
	}
	cmd.AddCommand(newRealserverSetup(), newRealserverUndo(), newRealserverShow())
	return cmd
}

func newRealserverSetup() *cobra.Command {
	var (
		o          realserver.Options
		vips       []string
		directors  []string
		tunnels    []string
		foreground bool
	)
	cmd := &cobra.Command{
		Use:   "setup --mode dr|tun --vip ADDRESS",
		Short: "Set the host up",
		Long: `Set the host up. Where the kernel itself can unpack the tunnel, and for dr,
the command returns when that is done and "uvs realserver undo" takes it back.
Else, or with --foreground, it goes on until SIGTERM or SIGINT and then takes
everything back itself.`,
		Example: `  uvs realserver setup --mode dr --vip 203.0.113.10 --vip 2001:db8:a::10
  uvs realserver setup --mode tun --tunnel gue --port 6080 --vip 203.0.113.10`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var errs [5]error
			o.VIPs, errs[0] = parseAddrs("--vip", vips)
			o.Directors, errs[4] = parseAddrs("--director", directors)
			o.Tunnels, errs[1] = parseTunnels(tunnels)
			o.Port, errs[2] = parsePort(cmd, o.Tunnels)
			if o.Mode != "tun" && (cmd.Flags().Changed("tunnel") || cmd.Flags().Changed("decap") || cmd.Flags().Changed("director")) {
				errs[3] = errors.New("--tunnel, --decap and --director go with --mode tun")
			}
			err := errors.Join(errs[:]...)
			if err == nil {
				err = o.Check()
			}
			if err != nil {
				return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
			}
			return runRealserverSetup(cmd.Context(), o, foreground, slog.Default())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Mode, "mode", "", "dr or tun")
	f.StringArrayVar(&vips, "vip", nil, "virtual address; may be given several times")
	f.StringSliceVar(&tunnels, "tunnel", []string{"ipip"}, "how the director encapsulates: ipip, gue, gre, or several of them")
	f.Uint16("port", realserver.DefaultGUEPort, "UDP port of gue")
	f.StringVar((*string)(&o.Decap), "decap", string(realserver.DecapAuto), "who unpacks: kernel, user (this command), bpf (a program of this command in the kernel) or auto, the kernel if it can, else user")
	f.StringArrayVar(&directors, "director", nil, "--decap bpf: a director's address, whose tunnel packets need not pass the firewall; may be given several times")
	f.BoolVar(&foreground, "foreground", false, "go on until SIGTERM, then undo")
	return cmd
}

// runRealserverSetup sets up and, where something has to run for it, runs.
func runRealserverSetup(ctx context.Context, o realserver.Options, foreground bool, log *slog.Logger) error {
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer cancel()
	decap, err := realserver.Setup(o)
	if err != nil {
		return err
	}
	if decap == nil && !foreground {
		log.Info("real server is set up", "mode", o.Mode, "vips", o.VIPs)
		return nil
	}
	var errs []error
	if decap == nil {
		log.Info("real server is set up", "mode", o.Mode, "vips", o.VIPs)
		<-ctx.Done()
	} else {
		log.Info("real server is set up", "mode", o.Mode, "vips", o.VIPs, "unpacks", decap.Device())
		if at, left := decap.Ingress(); at != nil {
			log.Info("the kernel unpacks for the directors", "directors", o.Directors, "at", at, "not_at", left)
		}
		errs = append(errs, decap.Run(ctx, log), decap.Close())
	}
	_, err = realserver.Undo(o.VIPs)
	return errors.Join(append(errs, err)...)
}

func newRealserverUndo() *cobra.Command {
	var vips []string
	cmd := &cobra.Command{
		Use:   "undo [--vip ADDRESS]",
		Short: "Take back what setup did",
		Long: `Take back what setup did, in this run or an earlier one: everything, or the
given VIPs; with the last of them go the settings and tunnels.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			addrs, err := parseAddrs("--vip", vips)
			if err != nil {
				return usageError{err}
			}
			did, err := realserver.Undo(addrs)
			for _, line := range did {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			if err == nil && len(did) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing to undo")
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&vips, "vip", nil, "only this virtual address; may be given several times")
	return cmd
}

func newRealserverShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Say what makes this host a real server at present",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := realserver.Show()
			if err != nil {
				return err
			}
			return printRealserver(cmd.OutOrStdout(), state)
		},
	}
}

func printRealserver(w io.Writer, state realserver.State) error {
	var b strings.Builder
	if len(state.VIPs) == 0 {
		b.WriteString("no VIP on lo: this host is no real server for dr or tun\n")
	}
	for _, vip := range state.VIPs {
		by := "not by uvs realserver"
		if vip.Ours {
			by = "by uvs realserver"
		}
		fmt.Fprintf(&b, "VIP      %v on lo, %s\n", vip.Addr, by)
	}
	for _, s := range state.Settings {
		fmt.Fprintf(&b, "setting  %s = %d", s.Name, s.Value)
		if s.Ours {
			fmt.Fprintf(&b, ", was %d", s.Before)
		}
		if len(state.VIPs) > 0 && s.Value < s.Want {
			fmt.Fprintf(&b, ": too low, the host answers ARP for the VIP; sysctl -w %s=%d", s.Name, s.Want)
		}
		b.WriteString("\n")
	}
	for _, t := range state.Tunnels {
		fmt.Fprintf(&b, "unpacks  %s\n", t)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func parseAddrs(flag string, words []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	var errs []error
	for _, w := range words {
		a, err := netip.ParseAddr(w)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q is no address", flag, w))
			continue
		}
		addrs = append(addrs, a)
	}
	return addrs, errors.Join(errs...)
}

func parseTunnels(words []string) ([]packet.EncapKind, error) {
	kinds := map[string]packet.EncapKind{"ipip": packet.IPIP, "gue": packet.GUE, "gre": packet.GRE}
	var list []packet.EncapKind
	var errs []error
	for _, w := range words {
		kind, ok := kinds[w]
		if !ok {
			errs = append(errs, fmt.Errorf("--tunnel %q: want ipip, gue or gre", w))
		}
		if !slices.Contains(list, kind) {
			list = append(list, kind)
		}
	}
	return list, errors.Join(errs...)
}

func parsePort(cmd *cobra.Command, tunnels []packet.EncapKind) (uint16, error) {
	port, err := cmd.Flags().GetUint16("port")
	if err != nil {
		return 0, err
	}
	if cmd.Flags().Changed("port") && (!slices.Contains(tunnels, packet.GUE) || port == 0) {
		return 0, errors.New("--port is the UDP port of --tunnel gue, 1 to 65535")
	}
	return port, nil
}
