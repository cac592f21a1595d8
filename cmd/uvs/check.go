package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/lb/sched"
)

// source is where a command reads the configuration: -c and --set.
type source struct {
	path string
	set  []string
}

func (s *source) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.path, "config", "c", "", "configuration file (.yaml, .yml, .toml or .json)")
	cmd.Flags().StringArrayVar(&s.set, "set", nil, "replace one key of the file, such as limits.flows=1000 (may be repeated)")
}

// load reads the configuration and builds everything of it that does not
// touch the machine, so that a fault in it shows before anything happened.
func (s *source) load() (*config.Config, error) {
	if s.path == "" {
		return nil, usageError{errors.New("no configuration file: give one with -c FILE")}
	}
	cfg, err := config.Load(s.path, config.Options{
		Schedulers:     sched.Names(),
		SchedulerFlags: sched.Flags,
		MaglevFaults:   func(m config.Maglev) map[string]string { return sched.Maglev(m).Faults() },
		Set:            s.set,
		LookupEnv:      os.LookupEnv,
	})
	if err == nil {
		_, err = newPlan(cfg, anyTunnelSource)
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("%s:\n%w", s.path, err)}
	}
	return cfg, nil
}

// anyTunnelSource stands for the host's answer where the host is not asked.
func anyTunnelSource(rip netip.Addr) (netip.Addr, error) { return rip, nil }

func newCheck() *cobra.Command {
	var from source
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check a configuration file and say every fault in it",
		Long: `check reads a configuration file as run would and says every fault in it, each
with the path of its key. It does not touch the machine and needs no rights.

Exit codes: 0 the file is good, 2 it is not.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := from.load()
			if err != nil {
				return err
			}
			listens, servers := 0, 0
			for _, s := range cfg.Services {
				listens += len(s.Listen)
				servers += len(s.RealServers)
			}
			announced := ""
			if n := len(cfg.BGP.Peers); n > 0 {
				announced = fmt.Sprintf(", announced to %d BGP peers", n)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: good: %d services on %d addresses and ports, %d real servers%s\n", from.path, len(cfg.Services), listens, servers, announced)
			return err
		},
	}
	from.flags(cmd)
	return cmd
}
