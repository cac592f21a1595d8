//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

// The short cut of a real server of mode tun: a program at the ingress of its
// interfaces takes the outer headers off the directors' plain tunnel packets, so
// that the inner packet goes up the host's stack as if the interface had
// received it, super-packets whole. Everything else goes on untouched: to the
// sockets of the Decapsulator if it is a tunnel packet, which knows what to do
// with fragments, options, marks of congestion, checksums and what is not for a
// VIP.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define UP (-1) // TCX_NEXT: on to the next program, then the stack

// Of linux/bpf.h since 6.3.
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

#define MORE_OR_OFFSET 0x3fff // of an IPv4 header: a fragment
#define ECN_MASK 3	      // all set: congestion was experienced

// Which tunnels are unpacked, as bits of kinds: 1 << packet.EncapKind.
#define IPIP (1 << 1)
#define GUE (1 << 2)
#define GRE (1 << 3)

volatile const __u32 kinds;
volatile const __u16 gue_port;

// An address; an IPv4 address has the first four bytes.
struct address {
	__u8 bytes[16];
	__u32 family; // 4 or 6
};

enum role {
	OWN = 1, // of the host, to which tunnel packets come
	VIP = 2,
	DIRECTOR = 3, // whose packets need not pass the host's firewall first
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); // set at load
	__type(key, struct address);
	__type(value, __u32);
} addresses SEC(".maps");

struct count {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

struct gue {
	struct udphdr udp;
	__u8 version, proto; // version: with the control bit and the length of options
	__be16 flags;
};

struct gre {
	__be16 flags, proto;
};

// The role of an address of this host, 0 for others.
static __always_inline __u32 role(const struct address *a)
{
	__u32 *r = bpf_map_lookup_elem(&addresses, a);

	return r ? *r : 0;
}

static __always_inline __u32 role4(__be32 addr)
{
	struct address a = {.family = 4};

	__builtin_memcpy(a.bytes, &addr, 4);
	return role(&a);
}

static __always_inline __u32 role6(const struct in6_addr *addr)
{
	struct address a = {.family = 6};

	__builtin_memcpy(a.bytes, addr, 16);
	return role(&a);
}

static __always_inline void count(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct count *c = bpf_map_lookup_elem(&counts, &zero);

	if (!c)
		return;
	c->packets += skb->gso_size ? skb->gso_segs : 1;
	c->bytes += skb->len - ETH_HLEN;
}

// strip takes off the n bytes between the Ethernet header and the inner packet,
// if that is for a VIP and does not claim to come from one. Only constants may
// be added to a pointer into the packet where the capability PERFMON is missing.
static __always_inline int strip(struct __sk_buff *skb, const int n, const int family)
{
	void *inner = (void *)(long)skb->data + ETH_HLEN + n;
	void *end = (void *)(long)skb->data_end;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (family == 4) {
		struct iphdr *ip = inner;
		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
			return UP;
		if (role4(ip->daddr) != VIP || role4(ip->saddr) == VIP)
			return UP;
		flags |= DECAP_L3_IPV4;
	} else {
		struct ipv6hdr *ip = inner;
		if ((void *)(ip + 1) > end || ip->version != 6)
			return UP;
		if (role6(&ip->daddr) != VIP || role6(&ip->saddr) == VIP)
			return UP;
		flags |= DECAP_L3_IPV6;
	}
	if (bpf_skb_adjust_room(skb, -n, BPF_ADJ_ROOM_MAC, flags) == 0)
		count(skb);
	return UP;
}

// unpack looks behind the outer IP header, which has n bytes.
static __always_inline int unpack(struct __sk_buff *skb, const int n, __u8 proto)
{
	void *at = (void *)(long)skb->data + ETH_HLEN + n;
	void *end = (void *)(long)skb->data_end;

	if (proto == IPPROTO_IPIP && kinds & IPIP)
		return strip(skb, n, 4);
	if (proto == IPPROTO_IPV6 && kinds & IPIP)
		return strip(skb, n, 6);
	if (proto == IPPROTO_GRE && kinds & GRE) {
		struct gre *g = at;
		if ((void *)(g + 1) > end || g->flags)
			return UP;
		if (g->proto == bpf_htons(ETH_P_IP))
			return strip(skb, n + sizeof(*g), 4);
		if (g->proto == bpf_htons(ETH_P_IPV6))
			return strip(skb, n + sizeof(*g), 6);
	}
	if (proto == IPPROTO_UDP && kinds & GUE) {
		struct gue *g = at;
		if ((void *)(g + 1) > end || g->udp.dest != bpf_htons(gue_port))
			return UP;
		if (g->udp.check || g->version || g->flags) // a checksum is for the socket to verify
			return UP;
		if (g->proto == IPPROTO_IPIP)
			return strip(skb, n + sizeof(*g), 4);
		if (g->proto == IPPROTO_IPV6)
			return strip(skb, n + sizeof(*g), 6);
	}
	return UP;
}

SEC("tc")
int decap(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return UP;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;
		if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->frag_off & bpf_htons(MORE_OR_OFFSET))
			return UP;
		if ((ip->tos & ECN_MASK) == ECN_MASK || role4(ip->daddr) != OWN || role4(ip->saddr) != DIRECTOR)
			return UP;
		// What is longer than its packet has padding, which would have to go as well.
		if (!skb->gso_size && bpf_ntohs(ip->tot_len) + ETH_HLEN != skb->len)
			return UP;
		return unpack(skb, sizeof(*ip), ip->protocol);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_HLEN;
		if ((void *)(ip + 1) > end)
			return UP;
		if ((ip->flow_lbl[0] >> 4 & ECN_MASK) == ECN_MASK)
			return UP;
		if (role6(&ip->daddr) != OWN || role6(&ip->saddr) != DIRECTOR)
			return UP;
		if (!skb->gso_size && bpf_ntohs(ip->payload_len) + sizeof(*ip) + ETH_HLEN != skb->len)
			return UP;
		return unpack(skb, sizeof(*ip), ip->nexthdr);
	}
	return UP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
