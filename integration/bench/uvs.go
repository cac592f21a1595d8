package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const uvsConf = `node: bench
device: {name: uvs0, egress: %[1]s}
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
// Its witness is the TUN device: what the kernel handed to uvs.
func setupUVS(_ context.Context, l *lane) error {
	mode, egress, forced := strings.Cut(l.name, "/")
	if !forced {
		egress = "auto"
	}
	path, err := l.config("uvs.yaml", uvsConf, egress, l.dir, mode)
	if err != nil {
		return err
	}
	l.witnessBytes = true
	l.witness = l.bytesOut("uvs0")
	if err := l.startDirector(l.uvs, "run", "-c", path); err != nil {
		return err
	}
	if mode != "dr" && mode != "tun" {
		return nil
	}
	// It sets the VIP, the ARP settings and for tun the decapsulation, by the
	// kernel's tunnel or, where it has none, in userspace until it is stopped.
	_, err = l.start(l.server, l.uvs, "realserver", "setup", "--mode", mode, "--vip", vipAddr)
	return err
}

// buildUVS builds the program as a release is built.
func buildUVS(ctx context.Context, dir string) (path string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "uvs")
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./cmd/uvs").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build uvs: %w: %s", err, out)
	}
	return path, nil
}
