package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/uvs-project/uvs/replay"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	from    source
	run     string
	write   string
	verbose bool
}

func newReplay() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay FILE...",
		Short: "Take recorded packets through the balancer, offline",
		Long: `replay takes the packets of files through the code that carries them live, with
a host that is played, and says what would leave. It touches nothing and needs no
rights.

A file of vectors (.json, .json.gz) brings its own network, rules and expectations:
each vector is played and compared. A capture (.pcap, .pcapng) is played to the
services of the configuration that -c names.

Exit codes: 0 done, and every expectation was met or is a difference on purpose,
1 an expectation was not met, 2 the command line or a file is wrong.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runReplay(cmd.OutOrStdout(), args, &o)
		},
	}
	o.from.flags(cmd)
	cmd.Flags().StringVar(&o.run, "run", "", "play only the vectors whose name matches this regular expression")
	cmd.Flags().StringVarP(&o.write, "write", "w", "", "write what left to this file: as vectors (.json), or as packets (.pcapng)")
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "say what came of every packet")
	return cmd
}

// A tally counts what became of vectors.
type tally struct {
	met, onPurpose, unmet, skipped int

	faults []error // of those that cannot be played
}

// empty says whether there was no vector.
func (t *tally) empty() bool { return t.met+t.onPurpose+t.unmet+t.skipped+len(t.faults) == 0 }

func runReplay(w io.Writer, names []string, o *replayOptions) error {
	chosen, err := regexp.Compile(o.run)
	if err != nil {
		return usageError{fmt.Errorf("--run: %w", err)}
	}
	if ext := filepath.Ext(o.write); o.write != "" && ext != ".json" && ext != ".pcapng" {
		return usageError{fmt.Errorf("--write %s: the name must end in .json or .pcapng", o.write)}
	}
	var out replay.File
	var t tally
	captures := 0
	for _, name := range names {
		var played *replay.File
		if replay.IsCapture(name) {
			captures++
			played, err = replayCapture(w, name, o)
		} else {
			played, err = replayVectors(w, name, chosen, o.verbose, &t)
		}
		if err != nil {
			return err
		}
		vectors := append(out.Vectors, played.Vectors...)
		out = *played
		out.Vectors = vectors
	}
	if t.empty() && captures < len(names) {
		// Whoever misspells a name must not take the silence for a success.
		return usageError{errors.New("there is no vector to play: --run fits no name, or the files are empty")}
	}
	if err := writeReplay(o.write, &out); err != nil {
		return err
	}
	if !t.empty() {
		fmt.Fprintf(w, "%d vectors met, %d different on purpose, %d not met, %d skipped\n", t.met, t.onPurpose, t.unmet, t.skipped)
	}
	if len(t.faults) > 0 {
		return usageError{errors.Join(t.faults...)}
	}
	if t.unmet > 0 {
		return fmt.Errorf("%d vectors were not met", t.unmet)
	}
	return nil
}

// replayVectors plays a file of vectors and says how each compares.
func replayVectors(w io.Writer, name string, chosen *regexp.Regexp, verbose bool, t *tally) (*replay.File, error) {
	f, err := replay.ReadFile(name)
	if err != nil {
		return nil, usageError{err}
	}
	out := *f
	out.Vectors = nil
	for i := range f.Vectors {
		v := &f.Vectors[i]
		if !chosen.MatchString(v.Name) {
			continue
		}
		if kind := replay.Inapplicable(v); kind != "" {
			t.skipped++
			fmt.Fprintf(w, "skipped     %s: %s\n", v.Name, kind)
			continue
		}
		played, err := replay.Play(f, v)
		if err != nil {
			// The others are no worse for it.
			t.faults = append(t.faults, fmt.Errorf("%s: %s: %w", name, v.Name, err))
			fmt.Fprintf(w, "not played  %s: %v\n", v.Name, err)
			continue
		}
		out.Vectors = append(out.Vectors, *played)
		compare(w, v, played, t)
		if verbose {
			printSteps(w, played)
		}
	}
	return &out, nil
}

// compare says how what was played differs from the vector.
func compare(w io.Writer, v, played *replay.Vector, t *tally) {
	var purposes []string
	var unmet []replay.Difference
	for _, d := range replay.Check(v, played) {
		p := replay.Explain(v, &d)
		switch {
		case p == nil:
			unmet = append(unmet, d)
		case !slices.Contains(purposes, p.Name):
			purposes = append(purposes, p.Name)
		}
	}
	switch {
	case len(unmet) > 0:
		t.unmet++
		fmt.Fprintf(w, "NOT MET     %s: %s\n", v.Name, v.Description)
		for _, d := range unmet {
			fmt.Fprintf(w, "%v  (- the vector, + uvs)\n", d)
		}
	case len(purposes) > 0:
		t.onPurpose++
		fmt.Fprintf(w, "on purpose  %s: %s\n", v.Name, strings.Join(purposes, ", "))
	default:
		t.met++
		fmt.Fprintf(w, "met         %s\n", v.Name)
	}
}

// replayCapture plays a capture to the services of the configuration.
func replayCapture(w io.Writer, name string, o *replayOptions) (*replay.File, error) {
	v, err := replay.ReadCapture(name)
	if err != nil {
		return nil, usageError{err}
	}
	if o.from.path == "" {
		return nil, usageError{fmt.Errorf("%s: a capture says nothing of services: name a configuration with -c FILE", name)}
	}
	cfg, err := o.from.load()
	if err != nil {
		return nil, err
	}
	p, err := newPlan(cfg, anyTunnelSource)
	if err != nil {
		return nil, usageError{err}
	}
	locals := slices.Clone(p.vips)
	for _, prefix := range p.balance.Locals {
		for a := prefix.Masked().Addr(); prefix.Contains(a) && len(locals) < maxLocals; a = a.Next() {
			locals = append(locals, a)
		}
	}
	d, err := replay.NewOpen(p.balance, locals)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f := &replay.File{Schema: 1, Group: "capture"}
	played, err := d.PlaySteps(f, v)
	if err != nil {
		return nil, err
	}
	f.Vectors = []replay.Vector{*played}
	printSteps(w, played)
	return f, nil
}

// maxLocals bounds the addresses of a pool that a replay takes for its own.
const maxLocals = 4096

// printSteps says what came of every packet.
func printSteps(w io.Writer, v *replay.Vector) {
	for i, s := range v.Steps {
		if s.Op != "inject" {
			continue
		}
		fmt.Fprintf(w, "%d: %.3f s, from %s\n%s", i, float64(s.At)/1000, s.Leg, indent(replay.Describe(s.Pkt)))
		for _, said := range s.Said {
			fmt.Fprintf(w, "  %s\n", said)
		}
		switch {
		case len(s.Out) > 0:
		case len(s.Said) == 0:
			fmt.Fprintln(w, "  nothing leaves: the host does not hand it to uvs")
		default:
			fmt.Fprintln(w, "  nothing leaves")
		}
		for _, f := range s.Out {
			fmt.Fprintf(w, "  leaves by %s to %s\n%s", f.Leg, f.To, indent(replay.Describe(f.Pkt)))
		}
	}
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + line)
	}
	return b.String()
}

// writeReplay writes what was played to a file, if it has a name.
func writeReplay(name string, f *replay.File) (err error) {
	if name == "" {
		return nil
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if filepath.Ext(name) == ".json" {
		return json.NewEncoder(out).Encode(f)
	}
	var vectors []*replay.Vector
	for i := range f.Vectors {
		vectors = append(vectors, &f.Vectors[i])
	}
	return replay.WriteCapture(out, vectors)
}
