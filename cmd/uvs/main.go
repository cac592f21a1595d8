//go:debug multipathtcp=0

// Command uvs is LVS in userspace: a layer 4 load balancer that needs no
// kernel module.
//
// Each command is one file. wire.go builds the director from its
// configuration and joins the parts; everything else is in the packages.
//
// Listeners are plain TCP (multipathtcp=0 above): MPTCP, Go's default, knows
// no TCP_MD5SIG, and a peer that signs its segments could not connect.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// The exit codes. Scripts and service managers rely on them.
const (
	exitOK     = 0
	exitFailed = 1 // it was asked rightly and did not work
	exitUsage  = 2 // the command line or the configuration is wrong: trying again does not help
)

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs the command that args name and returns the exit code.
func execute(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "uvs: %v\n", err)
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitFailed
}

// newRoot is the program: one line per command.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "uvs",
		Short: "LVS in userspace: a layer 4 load balancer without a kernel module",
		Long: `uvs balances TCP, UDP and SCTP for virtual IPs over real servers, in the
forwarding modes dr, nat, tun and fullnat.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newCheck(),
		newDemo(),
		newDrain(),
		newExplain(),
		newFlows(),
		newRealserver(),
		newReplay(),
		newRun(),
		newStatus(),
		newVersion(),
	)
	return root
}

// A usageError is a mistake of whoever called the program or wrote its
// configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usageArgs makes a mistake in a command's arguments a usageError.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
		}
		return nil
	}
}
