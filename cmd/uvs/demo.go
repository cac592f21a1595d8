package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/demo"
)

func newDemo() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show every mode at work on this machine",
		Long: `demo builds a client, a router, a director and two real servers in network
namespaces of their own, sends HTTP and UDP through every forwarding mode and
shows what each side saw. It needs root and nothing else, and leaves nothing
behind.

Exit codes: 0 every mode works, 1 one does not.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			signal.Ignore(syscall.SIGPIPE) // whoever reads us has gone: the write tells, and we end in order
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o.Program, o.Out = program, cmd.OutOrStdout()
			o.Color = o.Out == os.Stdout && isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == ""
			return demo.Run(ctx, o)
		},
	}
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print the outcome as JSON")
	cmd.Flags().BoolVar(&o.Hold, "hold", false, "stay up until Ctrl-C and say how to look around")
	return cmd
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
