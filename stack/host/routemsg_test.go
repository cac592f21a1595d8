package host

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// attr is one netlink attribute, padded.
func attr(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func routeMessage(family, bits, table, kind byte, flags uint32, attrs ...[]byte) []byte {
	b := append([]byte{family, bits, 0, 0, table, 97, 0, kind}, u32(flags)...)
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

func nextHop(flags, hops byte, link uint32, attrs ...[]byte) []byte {
	n := 8
	for _, a := range attrs {
		n += len(a)
	}
	b := append(binary.NativeEndian.AppendUint16(nil, uint16(n)), flags, hops)
	b = append(b, u32(link)...)
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

func TestParseRoute(t *testing.T) {
	gw := attr(unix.RTA_GATEWAY, 10, 0, 0, 254)
	dst := attr(unix.RTA_DST, 192, 0, 2, 0)
	oif := attr(unix.RTA_OIF, u32(2)...)
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	tests := []struct {
		name string
		in   []byte
		want kernelRoute
		bad  bool
	}{
		{name: "a gateway, a metric and an MTU",
			in: routeMessage(unix.AF_INET, 24, 254, unix.RTN_UNICAST, 0, dst, gw, oif, attr(unix.RTA_PRIORITY, u32(100)...),
				attr(unix.RTA_METRICS, attr(unix.RTAX_MTU, u32(1400)...)...)),
			want: kernelRoute{dst: prefix, table: 254, protocol: 97, kind: unix.RTN_UNICAST, metric: 100, mtu: 1400,
				hops: []kernelHop{{link: 2, via: addr("10.0.0.254"), weight: 1}}}},
		{name: "a default route has no destination", in: routeMessage(unix.AF_INET6, 0, 254, unix.RTN_UNICAST, 0, oif),
			want: kernelRoute{dst: netip.MustParsePrefix("::/0"), table: 254, protocol: 97, kind: unix.RTN_UNICAST, hops: []kernelHop{{link: 2, weight: 1}}}},
		{name: "a table above 255", in: routeMessage(unix.AF_INET, 24, 252, unix.RTN_UNICAST, 0, dst, oif, attr(unix.RTA_TABLE, u32(9740)...)),
			want: kernelRoute{dst: prefix, table: 9740, protocol: 97, kind: unix.RTN_UNICAST, hops: []kernelHop{{link: 2, weight: 1}}}},
		{name: "several hops with weights, one dead",
			in: routeMessage(unix.AF_INET, 24, 254, unix.RTN_UNICAST, 0, dst, attr(unix.RTA_MULTIPATH,
				append(nextHop(0, 2, 2, gw), nextHop(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN, 0, 3, attr(rtaVia, append([]byte{unix.AF_INET6, 0}, addr("fe80::1").AsSlice()...)...))...)...)),
			want: kernelRoute{dst: prefix, table: 254, protocol: 97, kind: unix.RTN_UNICAST, hops: []kernelHop{
				{link: 2, via: addr("10.0.0.254"), weight: 3}, {link: 3, via: addr("fe80::1"), weight: 1, dead: true, dark: true}}}},
		{name: "an encapsulation is odd",
			in:   routeMessage(unix.AF_INET, 24, 254, unix.RTN_UNICAST, 0, dst, oif, attr(rtaEncapType, 2, 0), attr(rtaEncap|1<<15, 0, 0, 0, 0)),
			want: kernelRoute{dst: prefix, table: 254, protocol: 97, kind: unix.RTN_UNICAST, odd: true, hops: []kernelHop{{link: 2, weight: 1}}}},
		{name: "the kernel's cache is none", in: routeMessage(unix.AF_INET, 24, 254, unix.RTN_UNICAST, unix.RTM_F_CLONED, dst, oif), bad: true},
		{name: "another family is none", in: routeMessage(unix.AF_MPLS, 20, 254, unix.RTN_UNICAST, 0, oif), bad: true},
		{name: "a prefix longer than its address is none", in: routeMessage(unix.AF_INET, 33, 254, unix.RTN_UNICAST, 0, oif), bad: true},
		{name: "a cut message is none", in: routeMessage(unix.AF_INET, 24, 254, unix.RTN_UNICAST, 0, dst, oif[:6]), bad: true},
		{name: "an empty message is none", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseRoute(tt.in)
			if ok == tt.bad {
				t.Fatalf("ok %v", ok)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(kernelRoute{}, kernelHop{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); ok && diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(routeMessage(unix.AF_INET, 24, 254, unix.RTN_UNICAST, 0, attr(unix.RTA_DST, 192, 0, 2, 0), attr(unix.RTA_MULTIPATH, nextHop(0, 2, 2)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := parseRoute(b); ok && (!r.dst.IsValid() || len(r.hops) == 0) {
			t.Errorf("%+v", r)
		}
		if p, _, ok := parseProxy(b); ok && !p.addr.IsValid() {
			t.Errorf("%+v", p)
		}
	})
}
