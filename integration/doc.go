// Package integration tests uvs as its users run it: the real program in
// networks of namespaces (package lab), with clients and servers that we did
// not write. Each test file opens with the topology that it uses. The tests
// need root and Debian's packages iproute2, nginx-light, iperf3, bind9,
// dnsutils, socat, curl, nftables, ethtool, iputils-ping and sip-tester; one that lacks
// something is skipped with the reason, or fails where CI=true.
package integration
