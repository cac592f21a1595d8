// Package config turns a configuration file into a [Config]: strict, typed
// and with every default filled in.
//
// A file (YAML, TOML or JSON) goes through three stages, and the faults of the
// last two are reported all at once, each with the path of its key:
//
//	read    the bytes become a tree; then UVS_ environment variables and --set
//	        flags replace single keys
//	decode  the tree becomes a Config; unknown keys, wrong types and values
//	        that do not parse are faults
//	check   values out of range and combinations that cannot work are faults
//
// A Config is a value that nobody changes; a reload makes a new one. The
// package knows nothing of the machine: whether an address or a device exists
// is for those to say who use it.
package config

import (
	"net/netip"
	"os"
	"time"
)

// Config is a whole configuration file.
type Config struct {
	Node         string       `mapstructure:"node"` // the director's name in logs and metrics
	Device       Device       `mapstructure:"device"`
	Addresses    Addresses    `mapstructure:"addresses"`
	LAN          LAN          `mapstructure:"lan"`
	Limits       Limits       `mapstructure:"limits"`
	Timeouts     Timeouts     `mapstructure:"timeouts"`
	Policy       Policy       `mapstructure:"policy"`
	Defence      Defence      `mapstructure:"defence"`
	Admin        Admin        `mapstructure:"admin"`
	BGP          BGP          `mapstructure:"bgp"`
	Announcement Announcement `mapstructure:"announcement"`
	Drain        Drain        `mapstructure:"drain"`
	Services     []Service    `mapstructure:"services"`
}

// Device is the TUN device that the kernel routes the VIPs into.
type Device struct {
	Name    string  `mapstructure:"name"`
	Queues  Queues  `mapstructure:"queues"`
	Egress  Egress  `mapstructure:"egress"`
	Offload Offload `mapstructure:"offload"`

	// OffloadEvery is the number of packets of established flows of which one
	// hands its flow to the fast lane.
	OffloadEvery int `mapstructure:"offload_every"`

	// Table is the number of the first of two routing tables, and the
	// preference of the first of ten policy rules, that are uvs's own. It is
	// to be changed only where another program has those numbers.
	Table int `mapstructure:"table"`
}

// Queues is how many queues the device has, each with a thread of its own.
// Zero, written "auto", is one per processor.
type Queues int

// Egress is the way out of packets.
type Egress string

// The ways out.
const (
	EgressAuto   Egress = "auto"   // link where the next hop is known, kernel elsewhere
	EgressKernel Egress = "kernel" // the host routes what is written to the device
	EgressLink   Egress = "link"   // straight to the interface of the next hop
)

// Offload says whether established flows may take a fast lane in the kernel.
type Offload string

// The settings of Offload.
const (
	OffloadAuto     Offload = "auto"     // where the kernel and the permissions allow it
	OffloadOff      Offload = "off"      // every packet crosses the TUN device
	OffloadRequired Offload = "required" // or uvs does not start
)

// Addresses are the director's own addresses.
type Addresses struct {
	TunnelSource []netip.Addr   `mapstructure:"tunnel_source"` // DIP, at most one per family; none: the source of the route to the real server
	FullNATPool  []netip.Prefix `mapstructure:"fullnat_pool"`  // LIPs; no two overlap
}

// LAN says how the VIPs are made known on the networks the director is
// connected to.
type LAN struct {
	Announce   Announce `mapstructure:"announce"`
	Interfaces []string `mapstructure:"interfaces"` // none: all whose network holds a VIP
}

// Announce says whether VIPs are announced on the LAN.
type Announce string

// The settings of Announce.
const (
	AnnounceAuto Announce = "auto" // a VIP that lies in a connected network is announced there
	AnnounceOff  Announce = "off"
)

// Limits bound what the director uses.
type Limits struct {
	Flows   int `mapstructure:"flows"`   // most flows at one time
	Answers int `mapstructure:"answers"` // most answers of uvs's own a second, of each kind and by each queue; 0: no limit
}

// Defence is what is given up so that the director survives a flood.
type Defence struct {
	DropEntry  DefenceMode `mapstructure:"drop_entry"`  // flows that a flood may have made
	DropPacket DefenceMode `mapstructure:"drop_packet"` // a part of the packets that would open a flow
	SecureTCP  DefenceMode `mapstructure:"secure_tcp"`  // policy.secure_tcp for every service
	DropRate   int         `mapstructure:"drop_rate"`   // one in how many, where drop_packet is always
	FreeFlows  int         `mapstructure:"free_flows"`  // auto begins below so many per cent of limits.flows
	FreeMemory int         `mapstructure:"free_memory"` // auto begins below so many MiB
}

// DefenceMode says when a defence is on.
type DefenceMode string

// The modes of a defence.
const (
	DefenceOff    DefenceMode = "off"
	DefenceAuto   DefenceMode = "auto" // while the flow table is nearly full or memory is low
	DefenceAlways DefenceMode = "always"
)

// Drain is how a director with BGP leaves on SIGTERM, so that its clients find
// another one first.
type Drain struct {
	Deadline time.Duration `mapstructure:"deadline"` // at the latest; 0: at once
	Flows    int           `mapstructure:"flows"`    // sooner, when so many active flows are left
	Quiet    time.Duration `mapstructure:"quiet"`    // sooner, when no packet has come for so long; 0 does not count
	Prepend  int           `mapstructure:"prepend"`  // how often the AS is prepended meanwhile, for routers that know no GRACEFUL_SHUTDOWN
}

// Admin is where the director is asked for its state.
type Admin struct {
	Socket string         `mapstructure:"socket"` // path of the unix socket; empty: none
	Listen netip.AddrPort `mapstructure:"listen"` // /metrics and /healthz; not valid: no TCP port
}

// Default is the configuration of an empty file.
func Default() Config {
	node, err := os.Hostname()
	if err != nil {
		node = "uvs"
	}
	return Config{
		Node:     node,
		Device:   Device{Name: "uvs0", Egress: EgressAuto, Offload: OffloadAuto, OffloadEvery: 8, Table: 9740},
		LAN:      LAN{Announce: AnnounceAuto},
		Limits:   Limits{Flows: 4_000_000, Answers: 1000},
		Timeouts: defaultTimeouts(),
		Policy:   defaultPolicy(),
		Defence:  Defence{DropEntry: DefenceOff, DropPacket: DefenceOff, SecureTCP: DefenceOff, DropRate: 10, FreeFlows: 10, FreeMemory: 64},
		Admin: Admin{
			Socket: "/run/uvs/uvs.sock",
			Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 9740),
		},
		BGP:          BGP{ListenPort: -1},
		Announcement: Announcement{VIPUp: VIPUpAny, DegradedBelow: 50},
		Drain:        Drain{Deadline: 8 * time.Second, Quiet: 2 * time.Second},
	}
}
