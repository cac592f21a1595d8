// Command bench measures uvs beside its peers: plain kernel forwarding,
// nftables DNAT, HAProxy (mode tcp), nginx (stream) and every uvs mode.
//
//	client ──198.18.1.0/24── director ──198.18.2.0/24── real server
//	 .2                    .1        .1                  .2
//
// Each [contender] gets a [lane], three namespaces of its own with the same
// addresses, so that none pays for the connection tracking or the routes of
// another. Within a round every [test] is run by every contender in turn; the
// figures are medians over the rounds. A contender is proven to be in the path
// before the first round, and its witness (a counter of its own) must move in
// every measurement.
//
// A run makes a [Report], printed as a table, a JSON file and a picture;
// [targets] compares it with what uvs promises. docs/performance.md tells the
// method and holds the tables of the last published run.
//
// It needs root and the programs iproute2, nftables, iperf3, wrk, nginx with
// the stream module, and haproxy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options say what a run measures.
type Options struct {
	Contenders []string      // names from contenders
	Tests      []string      // names from tests
	Rounds     int           // medians are over this many
	Length     time.Duration // length of one measurement
	Patience   time.Duration // how long one measurement may wait, and be repeated, for a calm machine
	Quick      bool          // fewer, shorter rounds: a smoke test, not a result
	Micro      bool          // run the Go benchmarks too
	UVS        string        // program to measure; "" builds ./cmd/uvs
	Before     string        // program of the contenders MODE/before
	Out        string        // directory of the results
	Publish    bool          // write docs/performance.* too
}

func main() {
	if len(os.Args) > 1 {
		if f, ok := workers[os.Args[1]]; ok {
			exit(f(os.Args[2:]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	exit(err)
}

func exit(err error) {
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, args []string) error {
	o, render, err := parseFlags(args)
	if err != nil {
		return err
	}
	if render != "" {
		rep, err := ReadReport(render)
		if err != nil {
			return err
		}
		return publish(rep, "docs")
	}
	rep, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if err := write(rep, o.Out); err != nil {
		return err
	}
	fmt.Print("\n", Tables(rep))
	fmt.Printf("written to %s\n", o.Out)
	if o.Publish {
		return publish(rep, "docs")
	}
	return nil
}

func parseFlags(args []string) (o Options, render string, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	names := fs.String("contenders", strings.Join(defaultContenders, ","), "contenders to measure; the uvs modes also as MODE/kernel and MODE/link, which force the egress, and MODE/before")
	wanted := fs.String("tests", strings.Join(defaultTests, ","), "measurements to make; further: "+strings.Join(furtherTests(), ","))
	fs.IntVar(&o.Rounds, "rounds", 5, "rounds; the figures are medians over them")
	fs.DurationVar(&o.Length, "time", 4*time.Second, "length of one measurement")
	fs.DurationVar(&o.Patience, "patience", 0, "how long each measurement may wait, and be repeated, for a calm machine")
	fs.BoolVar(&o.Quick, "quick", false, "3 rounds of 1s: shows that everything works, proves no figure")
	fs.BoolVar(&o.Micro, "micro", true, "run the Go benchmarks of packet, lb and modes too")
	fs.StringVar(&o.UVS, "uvs", "", "uvs to measure (default: build ./cmd/uvs)")
	fs.StringVar(&o.Before, "before", "", "another uvs, which contenders like nat/before measure beside the first")
	fs.StringVar(&o.Out, "out", "bench-out", "directory for bench.json, bench.svg and the logs")
	fs.BoolVar(&o.Publish, "publish", false, "write docs/performance.{json,svg} and the tables of docs/performance.md too")
	fs.StringVar(&render, "render", "", "measure nothing: publish this JSON file")
	if err := fs.Parse(args); err != nil {
		return o, "", err
	}
	if fs.NArg() > 0 {
		return o, "", fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.Quick {
		o.Rounds, o.Length = 3, time.Second
	}
	if o.Rounds < 1 || o.Length < time.Second {
		return o, "", errors.New("at least 1 round of at least 1s")
	}
	o.Contenders, o.Tests = strings.Split(*names, ","), strings.Split(*wanted, ",")
	for _, n := range o.Contenders {
		if _, err := contenderByName(n); err != nil {
			return o, "", err
		}
	}
	for _, n := range o.Tests {
		if _, ok := tests[n]; !ok {
			return o, "", fmt.Errorf("no test %q", n)
		}
	}
	if o.Out, err = filepath.Abs(o.Out); err != nil {
		return o, "", err
	}
	return o, render, nil
}
