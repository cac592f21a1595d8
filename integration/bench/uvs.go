package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/uvs-project/uvs/admin"
)

const uvsConf = `node: bench
device: {name: uvs0, egress: %[1]s, offload: %[4]s, offload_every: %[5]s}
addresses: {fullnat_pool: ["` + lipPool + `"]}
admin: {socket: "%[2]s/uvs.sock", listen: ""}
services:
  - name: bench
    listen: ["` + vipAddr + `:` + httpPort + `/tcp", "` + vipAddr + `:` + iperfPort + `/tcp", "` + vipAddr + `:` + udpPort + `/udp"]
    mode: %[3]s
    scheduler: rr
    tunnel: {type: ipip}
    health: {type: none}
    real_servers: [{address: "` + serverAddr + `"}]
`

// setupUVS starts the director in the mode that the contender is named after.
// Its witness is what the director says that it carried, on either road.
func setupUVS(_ context.Context, l *lane) error {
	mode, variant, _ := strings.Cut(l.name, "/")
	egress, offload, every := "auto", "auto", "32"
	switch variant {
	case "kernel", "link":
		egress, offload = variant, "off"
	case "road":
		offload = "off"
	case "offer1", "offer32", "offer128":
		every = strings.TrimPrefix(variant, "offer")
	}
	path, err := l.config("uvs.yaml", uvsConf, egress, l.dir, mode, offload, every)
	if err != nil {
		return err
	}
	l.witnessBytes = true
	l.witness = func(ctx context.Context) (uint64, error) {
		var s admin.State
		err := admin.Fetch(ctx, filepath.Join(l.dir, "uvs.sock"), "/v1/state", &s)
		return s.Total.Requests.Bytes + s.Total.Replies.Bytes, err
	}
	if err := l.startDirector(l.uvs, "run", "-c", path); err != nil {
		return err
	}
	if mode != "dr" && mode != "tun" {
		return nil
	}
	// It sets the VIP, the ARP settings and for tun the decapsulation, in the
	// kernel: the real server shares the director's cores here.
	args := []string{l.uvs, "realserver", "setup", "--mode", mode, "--vip", vipAddr}
	if mode == "tun" {
		args = append(args, "--decap", "bpf", "--director", dipAddr)
	}
	_, err = l.start(l.server, args...)
	return err
}

// binaries are the programs to measure.
type binaries struct{ uvs, before string }

// of is the program of a contender, "" for one that is not uvs.
func (b binaries) of(c contender) string {
	switch {
	case !c.uvs:
		return ""
	case strings.HasSuffix(c.name, "/before"):
		return b.before
	}
	return b.uvs
}

// binaries finds the programs that the contenders need, and builds uvs as a
// release is built unless o names it.
func (o Options) binaries(ctx context.Context) (b binaries, err error) {
	b = binaries{uvs: o.UVS, before: o.Before}
	for _, path := range []*string{&b.uvs, &b.before} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return b, err
		}
	}
	for _, name := range o.Contenders {
		c, err := contenderByName(name)
		if err != nil {
			return b, err
		}
		if !c.uvs || b.of(c) != "" {
			continue
		}
		if strings.HasSuffix(name, "/before") {
			return b, fmt.Errorf("%s needs -before", name)
		}
		b.uvs = filepath.Join(o.Out, "uvs")
		out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.uvs, "./cmd/uvs").CombinedOutput()
		if err != nil {
			return b, fmt.Errorf("build uvs: %w: %s", err, out)
		}
	}
	return b, nil
}
