//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

// The fast lane: a program at the ingress of the director's interfaces that
// carries the packets of flows which uvs has decided. What uvs has to see
// (whatever opens or ends a connection, fragments, options, packets without
// TTL or too big for the way out) and all that no entry names goes on up the
// host's stack as if the program were not there.
//
// The bytes that leave are those that packet.Rewrite makes; fastlane's tests
// hold the two against each other.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define UP (-1) // TC_ACT_UNSPEC and TCX_NEXT: on to the next program, then the stack

#define FAMILY_INET 2
#define FAMILY_INET6 10

#define MORE_OR_OFFSET 0x3fff // of an IPv4 header: a fragment
#define DONT_FRAGMENT 0x4000
#define ECN_MASK 3
#define ECT_0 2

#define MIN_MTU6 1280
#define UNTELLABLE_MTU 1260 // up to here no IPv6 sender can be told to send less

#define BEAT_LIMIT 2000000000ULL // ns: an uvs that is silent for longer is dead

// A tuple is a packet.Tuple: ports in host order, an IPv4 address in the first
// four bytes.
struct tuple {
	__u8 src[16], dst[16];
	__u16 sport, dport;
	__u8 proto, family;
};

enum encap { NO_ENCAP, IPIP, GUE, GRE };

enum change {
	NEW_SRC = 1, // src and sport are the packet's new source
	NEW_DST = 2,
};

// A flow says what is done to one direction of a flow: a packet.Rewrite.
struct flow {
	__u32 generation; // of the uvs, and of the host's routes, that it was written for
	__u32 hop;        // index in hops
	__u32 account;    // index in accounts
	__u8 src[16], dst[16]; // new addresses, or the outer header's with an encapsulation
	__be16 sport, dport;   // new ports, or GUE's
	__u8 change, encap, family, pad; // family: of src and dst
	__u32 pad2;
	__u64 seen; // CLOCK_MONOTONIC of the last packet that was carried, ns
};

// A hop is a way out: a device and the neighbour on it.
struct hop {
	__u32 ifindex, mtu;
	__u32 family; // of the neighbour's address
	__u8 addr[16];
};

// An account counts what was carried for one real server in one direction,
// by every core for itself.
struct account {
	__u64 packets, bytes;
};

struct control {
	__u32 generation; // entries of another one do not count
	__u32 pad;
	__u64 beat; // CLOCK_MONOTONIC at which uvs last said that it lives, ns
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); // set at load
	__type(key, struct tuple);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1); // set at load
	__type(key, __u32);
	__type(value, struct account);
} accounts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

// A parsed packet. Offsets count from the Ethernet header.
struct view {
	struct tuple key;
	__u32 headers; // length of all headers, for the segments of a super-packet
	__u32 segment; // length of the IP packet, of a super-packet's segments
	__u8 ttl, tos;
	__u8 dont_fragment;
	__u8 no_checksum; // UDP without
};

static __always_inline __u16 fold(__u64 s)
{
	s = (s >> 32) + (s & 0xffffffff);
	s = (s >> 16) + (s & 0xffff);
	s = (s >> 16) + (s & 0xffff);
	s = (s >> 16) + (s & 0xffff);
	return s;
}

// fold32 keeps a sum that is not zero from becoming it.
static __always_inline __u32 fold32(__u64 s)
{
	s = (s >> 32) + (s & 0xffffffff);
	s = (s >> 32) + (s & 0xffffffff);
	return s;
}

// delta is the change of a checksum's sum when a word changes (RFC 1624).
static __always_inline __u64 delta(__u32 from, __u32 to)
{
	return (__u64)(__u32)~from + to;
}

static __always_inline __u64 delta16(__u16 from, __u16 to)
{
	return (__u64)(__u16)~from + to;
}

static __always_inline __u32 word(const __u8 *addr, int i)
{
	return *(const __u32 *)(addr + 4 * i);
}

static __always_inline void set_word(__u8 *addr, int i, __u32 w)
{
	*(__u32 *)(addr + 4 * i) = w;
}

// Where the transport header begins. Only a constant may be added to a pointer
// into the packet where uvs has the capability BPF but not PERFMON.
#define L4_BEHIND_4 (ETH_HLEN + sizeof(struct iphdr))
#define L4_BEHIND_6 (ETH_HLEN + sizeof(struct ipv6hdr))

// parse_transport completes the view of a packet whose addresses are in it. It
// is false for what has to go up.
static __always_inline int parse_transport(struct __sk_buff *skb, struct view *v, const __u32 l4)
{
	void *end = (void *)(long)skb->data_end;

	if (v->key.proto == IPPROTO_TCP) {
		struct tcphdr *t = (void *)(long)skb->data + l4;
		if ((void *)(t + 1) > end)
			return 0;
		if (t->syn || t->fin || t->rst || !t->ack)
			return 0;
		v->key.sport = bpf_ntohs(t->source);
		v->key.dport = bpf_ntohs(t->dest);
		v->headers = l4 + 4 * t->doff;
		return 1;
	}
	if (v->key.proto == IPPROTO_UDP) {
		struct udphdr *u = (void *)(long)skb->data + l4;
		if ((void *)(u + 1) > end)
			return 0;
		v->key.sport = bpf_ntohs(u->source);
		v->key.dport = bpf_ntohs(u->dest);
		v->headers = l4 + sizeof(*u);
		v->no_checksum = u->check == 0;
		return 1;
	}
	return 0;
}

static __always_inline int parse4(struct __sk_buff *skb, struct view *v)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(MORE_OR_OFFSET))
		return 0;
	// A frame can be longer than its packet. Those are rare: they go up.
	if (bpf_ntohs(ip->tot_len) + ETH_HLEN != skb->len && !skb->gso_size)
		return 0;
	v->key.family = 4;
	v->key.proto = ip->protocol;
	set_word(v->key.src, 0, ip->saddr);
	set_word(v->key.dst, 0, ip->daddr);
	v->ttl = ip->ttl;
	v->tos = ip->tos;
	v->dont_fragment = !!(ip->frag_off & bpf_htons(DONT_FRAGMENT));
	return parse_transport(skb, v, L4_BEHIND_4);
}

static __always_inline int parse6(struct __sk_buff *skb, struct view *v)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ip->version != 6)
		return 0;
	if (bpf_ntohs(ip->payload_len) + sizeof(*ip) + ETH_HLEN != skb->len && !skb->gso_size)
		return 0;
	v->key.family = 6;
	v->key.proto = ip->nexthdr;
	__builtin_memcpy(v->key.src, &ip->saddr, 16);
	__builtin_memcpy(v->key.dst, &ip->daddr, 16);
	v->ttl = ip->hop_limit;
	v->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	return parse_transport(skb, v, L4_BEHIND_6);
}

// change4 decrements the TTL and sets the addresses that f changes. It gives
// the delta of the addresses.
static __always_inline int change4(struct __sk_buff *skb, const struct flow *f, __u64 *addrs)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	__u64 d = 0;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (f->change & NEW_SRC) {
		d += delta(ip->saddr, word(f->src, 0));
		ip->saddr = word(f->src, 0);
	}
	if (f->change & NEW_DST) {
		d += delta(ip->daddr, word(f->dst, 0));
		ip->daddr = word(f->dst, 0);
	}
	*addrs = d;
	ip->ttl--;
	d += delta16(bpf_htons(0x0100), 0);
	ip->check = ~fold((__u64)(__u16)~ip->check + d);
	return 1;
}

// change6 is change4 for IPv6. No checksum of the header's own covers these
// bytes, so a sum over the whole packet that the device has made is amended.
static __always_inline int change6(struct __sk_buff *skb, const struct view *v, const struct flow *f, __u64 *addrs)
{
	struct {
		__u8 next, ttl;
		__u8 src[16], dst[16];
	} h = {.next = v->key.proto, .ttl = v->ttl - 1};
	__u64 d = 0;

	__builtin_memcpy(h.src, v->key.src, 16);
	__builtin_memcpy(h.dst, v->key.dst, 16);
	if (f->change & NEW_SRC) {
		for (int i = 0; i < 4; i++)
			d += delta(word(v->key.src, i), word(f->src, i));
		__builtin_memcpy(h.src, f->src, 16);
	}
	if (f->change & NEW_DST) {
		for (int i = 0; i < 4; i++)
			d += delta(word(v->key.dst, i), word(f->dst, i));
		__builtin_memcpy(h.dst, f->dst, 16);
	}
	*addrs = d;
	return bpf_skb_store_bytes(skb, ETH_HLEN + 6, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) == 0;
}

// sum is the sum of a tuple's address, whose unused bytes are zero.
static __always_inline __u64 sum(const __u8 *addr)
{
	return (__u64)word(addr, 0) + word(addr, 1) + word(addr, 2) + word(addr, 3);
}

// put_header6 writes an IPv6 header without a flow label.
static __always_inline int put_header6(struct __sk_buff *skb, __u8 tos, __u8 ttl, __u8 proto, const struct flow *f)
{
	struct ipv6hdr h = {
		.version = 6,
		.priority = tos >> 4,
		.flow_lbl = {tos << 4},
		.payload_len = bpf_htons(skb->len - ETH_HLEN - sizeof(h)),
		.nexthdr = proto,
		.hop_limit = ttl,
	};

	__builtin_memcpy(&h.saddr, f->src, 16);
	__builtin_memcpy(&h.daddr, f->dst, 16);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) == 0;
}

// put_header4 writes an IPv4 header without options.
static __always_inline int put_header4(struct __sk_buff *skb, __u8 tos, __u8 ttl, __u8 proto, int dont_fragment, const struct flow *f)
{
	struct iphdr h = {
		.version = 4,
		.ihl = 5,
		.tos = tos,
		.tot_len = bpf_htons(skb->len - ETH_HLEN),
		.ttl = ttl,
		.protocol = proto,
		.saddr = word(f->src, 0),
		.daddr = word(f->dst, 0),
	};
	__u64 s = 0;

	if (dont_fragment)
		h.frag_off = bpf_htons(DONT_FRAGMENT);
	else
		h.id = bpf_get_prandom_u32();
	for (int i = 0; i < 5; i++)
		s += word((__u8 *)&h, i);
	h.check = ~fold(s);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) == 0;
}

// crosses says whether f gives packets a header of the other family.
static __always_inline int crosses(const struct view *v, const struct flow *f)
{
	return f->encap == NO_ENCAP && f->family != v->key.family;
}

// can_cross says whether cross can do it: the kernel knows super-packets of TCP
// only, and what IPv4 routers may fragment has to be cut for IPv6.
static __always_inline int can_cross(struct __sk_buff *skb, const struct view *v, const struct flow *f)
{
	if (skb->gso_size)
		return v->key.proto == IPPROTO_TCP;
	return f->family == 4 || v->dont_fragment || v->segment + 20 <= MIN_MTU6;
}

// cross replaces the IP header by one of the other family (RFC 7915), where
// both addresses are new.
static __always_inline int cross(struct __sk_buff *skb, const struct view *v, const struct flow *f, __u64 *addrs)
{
	*addrs = (__u16)~fold(sum(v->key.src) + sum(v->key.dst)) + sum(f->src) + sum(f->dst);
	if (f->family == 6) {
		if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0))
			return 0;
		return put_header6(skb, v->tos, v->ttl - 1, v->key.proto, f);
	}
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0))
		return 0;
	return put_header4(skb, v->tos, v->ttl - 1, v->key.proto, v->segment - 20 > UNTELLABLE_MTU, f);
}

// change_ports sets the ports that f changes and gives their delta.
static __always_inline int change_ports(struct __sk_buff *skb, const struct flow *f, const __u32 l4, __u64 *ports)
{
	__be16 *p = (void *)(long)skb->data + l4;
	__u64 d = 0;

	if ((void *)(p + 2) > (void *)(long)skb->data_end)
		return 0;
	if (f->change & NEW_SRC) {
		d += delta16(p[0], f->sport);
		p[0] = f->sport;
	}
	if (f->change & NEW_DST) {
		d += delta16(p[1], f->dport);
		p[1] = f->dport;
	}
	*ports = d;
	return 1;
}

// translate gives the packet new addresses and ports. It may fail only before
// it has changed anything that a failure would send up; the rest cannot fail
// for a header that was parsed.
static __always_inline int translate(struct __sk_buff *skb, const struct view *v, const struct flow *f)
{
	__u64 addrs = 0, ports = 0;
	__u32 at = __builtin_offsetof(struct tcphdr, check);
	__u64 flags = 0;

	if (v->key.proto == IPPROTO_UDP) {
		at = __builtin_offsetof(struct udphdr, check);
		flags = BPF_F_MARK_MANGLED_0;
	}
	if (f->change) {
		if (v->key.family == 6) {
			if (!change_ports(skb, f, L4_BEHIND_6, &ports))
				return 0;
		} else if (!change_ports(skb, f, L4_BEHIND_4, &ports)) {
			return 0;
		}
		at += f->family == 6 ? L4_BEHIND_6 : L4_BEHIND_4;
	}
	if (crosses(v, f)) {
		if (!cross(skb, v, f, &addrs))
			return 0;
	} else if (v->key.family == 4) {
		if (!change4(skb, f, &addrs))
			return 0;
	} else if (!change6(skb, v, f, &addrs)) {
		return 0;
	}
	if (!f->change)
		return 1;
	if (bpf_l4_csum_replace(skb, at, 0, fold32(addrs), flags | BPF_F_PSEUDO_HDR))
		return 0;
	return bpf_l4_csum_replace(skb, at, 0, fold32(ports), flags) == 0;
}

// The headers between the outer IP header and the inner packet.
struct gue {
	struct udphdr udp;
	__u8 version, proto;
	__be16 flags;
};

struct gre {
	__be16 flags, proto;
};

static __always_inline __u32 tunnel_len(const struct flow *f)
{
	switch (f->encap) {
	case GUE:
		return sizeof(struct gue);
	case GRE:
		return sizeof(struct gre);
	}
	return 0;
}

// growth is how much longer f makes a packet.
static __always_inline __u32 growth(const struct flow *f)
{
	return (f->family == 6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + tunnel_len(f);
}

// leaving is how long the packet is when it leaves, or each of its segments.
static __always_inline __u32 leaving(const struct view *v, const struct flow *f)
{
	if (f->encap != NO_ENCAP)
		return v->segment + growth(f);
	if (crosses(v, f))
		return f->family == 6 ? v->segment + 20 : v->segment - 20;
	return v->segment;
}

// push_outer makes room for f's outer headers so that a super-packet stays one
// that the device, or the kernel before it, can cut.
static __always_inline int push_outer(struct __sk_buff *skb, const struct flow *f)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	flags |= f->family == 6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	if (f->encap == GUE) // GUE's header stands where a link header would
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(sizeof(struct gue) - sizeof(struct udphdr));
	if (f->encap == GRE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	return bpf_skb_adjust_room(skb, growth(f), BPF_ADJ_ROOM_MAC, flags) == 0;
}

// encapsulate pushes the outer headers of f, made as packet.Prepend makes them.
static __always_inline int encapsulate(struct __sk_buff *skb, const struct view *v, const struct flow *f)
{
	__u8 inner = v->key.family == 6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	__u8 proto = inner;
	__u8 tos = v->tos;
	__u8 ttl = v->ttl - 1;
	__u32 at = ETH_HLEN;

	if (f->encap == GUE)
		proto = IPPROTO_UDP;
	else if (f->encap == GRE)
		proto = IPPROTO_GRE;
	if ((tos & ECN_MASK) == ECN_MASK)
		tos = (tos & ~ECN_MASK) | ECT_0;
	if (!push_outer(skb, f))
		return 0;
	if (f->family == 6) {
		if (!put_header6(skb, tos, ttl, proto, f))
			return 0;
		at += sizeof(struct ipv6hdr);
	} else {
		if (!put_header4(skb, tos, ttl, proto, v->dont_fragment, f))
			return 0;
		at += sizeof(struct iphdr);
	}
	if (f->encap == GUE) {
		struct gue h = {
			.udp.source = f->sport,
			.udp.dest = f->dport,
			.udp.len = bpf_htons(skb->len - at),
			.proto = inner,
		};
		return bpf_skb_store_bytes(skb, at, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) == 0;
	}
	if (f->encap == GRE) {
		struct gre h = {.proto = bpf_htons(v->key.family == 6 ? ETH_P_IPV6 : ETH_P_IP)};
		return bpf_skb_store_bytes(skb, at, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) == 0;
	}
	return 1;
}

// count adds the packet to the flow's account, a super-packet by its segments.
static __always_inline void count(struct __sk_buff *skb, const struct view *v, struct flow *f, __u64 now)
{
	__u64 packets = 1, bytes = skb->len - ETH_HLEN;
	__u32 i = f->account;
	struct account *a = bpf_map_lookup_elem(&accounts, &i);

	if (skb->gso_size) {
		packets = skb->gso_segs;
		bytes += (packets - 1) * (v->headers - ETH_HLEN);
	}
	if (a) {
		a->packets += packets;
		a->bytes += bytes;
	}
	f->seen = now;
}

SEC("tc")
int lane(struct __sk_buff *skb)
{
	struct view v = {};
	__u32 zero = 0, hop_index;
	struct control *c;
	struct flow *f;
	struct hop *h;
	__u64 now;
	int ok = 0;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return UP;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		ok = parse4(skb, &v);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		ok = parse6(skb, &v);
	if (!ok)
		return UP;
	f = bpf_map_lookup_elem(&flows, &v.key);
	if (!f)
		return UP;
	c = bpf_map_lookup_elem(&control, &zero);
	now = bpf_ktime_get_ns();
	if (!c || c->generation != f->generation || now > c->beat + BEAT_LIMIT)
		return UP;
	hop_index = f->hop;
	h = bpf_map_lookup_elem(&hops, &hop_index);
	if (!h || !h->ifindex)
		return UP;
	if (v.ttl <= 1 || (f->change && v.no_checksum))
		return UP;
	v.segment = skb->gso_size ? v.headers - ETH_HLEN + skb->gso_size : skb->len - ETH_HLEN;
	if (leaving(&v, f) > h->mtu)
		return UP;
	if (crosses(&v, f) && !can_cross(skb, &v, f))
		return UP;

	count(skb, &v, f, now);
	if (!translate(skb, &v, f) || (f->encap != NO_ENCAP && !encapsulate(skb, &v, f)))
		return 2; // TC_ACT_SHOT: half changed

	struct bpf_redir_neigh to = {.nh_family = h->family == 6 ? FAMILY_INET6 : FAMILY_INET};
	if (h->family == 6)
		__builtin_memcpy(to.ipv6_nh, h->addr, 16);
	else
		to.ipv4_nh = word(h->addr, 0);
	return bpf_redirect_neigh(h->ifindex, &to, sizeof(to), 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
