// Package fastlane carries flows that uvs has decided in the kernel: a tc
// program at the ingress of the director's interfaces applies the flow's
// packet.Rewrite and redirects the packet to the neighbour that it goes to
// next. What opens or ends a connection, errors, fragments and everything odd
// still comes up to uvs, which stays the only one that decides.
//
// An entry is always harmless: one that names a generation other than the
// current, one of an uvs that has not beaten for two seconds, and one whose
// way out is gone let the packet go up, where it takes the TUN road.
package fastlane

//go:generate go tool bpf2go -target bpfel,bpfeb -cflags "-O2 -g -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" lane lane.c
//go:generate sh -c "sha256sum lane.c > lane.c.sum"
