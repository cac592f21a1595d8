package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var from source
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the director",
		Long: `run balances what the configuration says until it gets SIGTERM or SIGINT, when
it undoes what it changed on the host. With BGP it first asks the routers for
other directors and waits as the section drain says; another signal, or SIGQUIT
in the first place, ends the waiting. On SIGHUP it reads the file anew; a file
with a fault changes nothing and its faults are logged.

Exit codes: 0 stopped by a signal, 1 failed, 2 the configuration is wrong.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := from.load()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)).With("node", cfg.Node)

			// From here on a signal ends us in order.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGQUIT)
			defer stop()
			leave := make(chan os.Signal, 1)
			signal.Notify(leave, syscall.SIGTERM, syscall.SIGINT)
			defer signal.Stop(leave)
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)

			d, err := startDirector(cfg, from.path, log)
			if err != nil {
				return fmt.Errorf("cannot start: %w", err)
			}
			return d.run(ctx, leave, hup, from.load)
		},
	}
	from.flags(cmd)
	return cmd
}
