package admin

import "time"

// State is what a director does and has done since its start, as GET
// /v1/state answers. Counters never go down while the director runs.
type State struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`

	Config   ConfigState       `json:"config"`
	Device   DeviceState       `json:"device"`
	Warnings []string          `json:"warnings"` // what the host is set to that may harm, with the command that mends it
	Flows    FlowState         `json:"flows"`
	Defence  DefenceState      `json:"defence"`
	Lookups  LookupState       `json:"lookups"`
	Packets  PacketState       `json:"packets"`
	Drops    map[string]uint64 `json:"drops"` // dropped packets by reason, only reasons that occurred
	Lost     map[string]uint64 `json:"lost"`  // likewise those that were sent and did not leave
	Notes    map[string]uint64 `json:"notes"` // what the balancer noted about packets, dropped or answered
	BGP      []PeerState       `json:"bgp"`   // in the order of the configuration
	Total    Measured          `json:"total"` // of all services, those that were removed too
	VIPs     []VIPState        `json:"vips"`  // those that services want announced
	Services []ServiceState    `json:"services"`
	Drains   []DrainState      `json:"drains"`
}

// ConfigState is the configuration in force.
type ConfigState struct {
	File      string    `json:"file"`
	Loaded    time.Time `json:"loaded"`     // when the configuration in force was read
	LastError string    `json:"last_error"` // of the last reload; empty if it succeeded
}

// DeviceState is the TUN device.
type DeviceState struct {
	Name     string `json:"name"`
	Queues   int    `json:"queues"`
	Offloads string `json:"offloads"` // what the kernel granted
	Egress   string `json:"egress"`
	FastLane string `json:"fast_lane"` // on, or why it is off
}

// FlowState is the flow table.
type FlowState struct {
	Now     int    `json:"now"`
	Limit   int    `json:"limit"`
	Created uint64 `json:"created"`
	Expired uint64 `json:"expired"`
	Evicted uint64 `json:"evicted"` // because the table was full
	Dropped uint64 `json:"dropped"` // by drop_entry
	Ended   uint64 `json:"ended"`   // by policy.removed or policy.drain

	Resets     uint64 `json:"resets"`      // that told an end of its connection's end
	ResetsLost uint64 `json:"resets_lost"` // and those for which too many waited

	InLane int `json:"in_lane"` // of Now: flows that the fast lane may carry
}

// DefenceState is what is given up just now, and under which pressure.
type DefenceState struct {
	DropEntry  bool `json:"drop_entry"`
	DropPacket int  `json:"drop_packet"` // one in so many packets that would open a flow is dropped; 0: none
	SecureTCP  bool `json:"secure_tcp"`
	FewFlows   bool `json:"few_flows"`  // the flow table is nearly full
	LowMemory  bool `json:"low_memory"` // free memory is below the threshold
}

// LookupState says how packets found their flow.
type LookupState struct {
	Hit        uint64 `json:"hit"`
	MissSYN    uint64 `json:"miss_syn"`
	MissNonSYN uint64 `json:"miss_nonsyn"`
}

// PacketState is the road of packets; a super-packet counts as one.
// Received is the sum of Sent, Passed, Returned, Dropped and those fragments
// that are waiting for their first.
type PacketState struct {
	Received uint64 `json:"received"`
	Bytes    uint64 `json:"bytes"`    // of those received
	Sent     uint64 `json:"sent"`     // rewritten and sent on their way
	Passed   uint64 `json:"passed"`   // answered by the netstack behind the VIPs
	Returned uint64 `json:"returned"` // given back to the kernel: not ours
	Dropped  uint64 `json:"dropped"`
	Lost     uint64 `json:"lost"`      // of those sent or returned: did not leave
	ByLink   uint64 `json:"by_link"`   // frames straight to an interface
	ByKernel uint64 `json:"by_kernel"` // packets given to the host to route
}

// PeerState is one router that VIPs are announced to.
type PeerState struct {
	Peer      string    `json:"peer"` // its address or interface, as configured
	AS        uint32    `json:"as"`
	State     string    `json:"state"` // idle, active, opensent, openconfirm, established
	Since     time.Time `json:"since"` // when it was established, or lost
	Flaps     uint64    `json:"flaps"`
	Announced int       `json:"announced"`  // prefixes that it has from us
	Refused   uint64    `json:"refused"`    // prefixes that it announced
	BFD       string    `json:"bfd"`        // admin_down, down, init, up; empty without BFD
	LastError string    `json:"last_error"` // why there is no session, or was none
}

// ServiceState is one service.
type ServiceState struct {
	Name   string   `json:"name"`
	Listen []string `json:"listen"`
	Measured
	RealServers []RealServerState `json:"real_servers"`
}

// RealServerState is one real server of one service.
type RealServerState struct {
	Address       string `json:"address"` // without a port: the client's stays
	Mode          string `json:"mode"`
	Weight        int    `json:"weight"`
	State         string `json:"state"` // checking, up, slow_start, down, draining or maintenance; removed while it has flows
	ActiveFlows   int64  `json:"active_flows"`
	InactiveFlows int64  `json:"inactive_flows"`
	Persistent    int64  `json:"persistent_clients"` // that are bound to it
	MaxFlows      int    `json:"max_flows"`          // 0: no bound
	MinFlows      int    `json:"min_flows"`
	Overloaded    bool   `json:"overloaded"` // gets no new flows because of max_flows
	PathMTU       int    `json:"path_mtu"`   // bytes; 0 not known
	Refused       uint64 `json:"refused"`    // TCP connections, in nat and fullnat
	Unanswered    uint64 `json:"unanswered"` // likewise
	Measured
	Health *HealthState `json:"health"` // null: removed
}

// VIPState says whether enough of what is behind a VIP is fit for it to be
// announced to routers.
type VIPState struct {
	Address string `json:"address"`
	Up      bool   `json:"up"`
	MED     int    `json:"med"`   // added to that of the configuration
	Level   string `json:"level"` // whole, degraded or backup; of one that is up
	Reason  string `json:"reason"`
}

// HealthState is what the checks of one real server say.
type HealthState struct {
	Check       string    `json:"check"` // its type
	Since       time.Time `json:"since"` // of the state
	Cause       string    `json:"cause"` // of the state
	Transitions uint64    `json:"transitions"`
	Ejected     time.Time `json:"ejected"` // until then; year 1: it is not
	Ejections   uint64    `json:"ejections"`
	Spared      uint64    `json:"spared"` // ejections that the limit forbade
	Good        uint64    `json:"good"`   // checks
	Bad         uint64    `json:"bad"`
	LastError   string    `json:"last_error"` // empty: the latest check was good
	LastSeconds float64   `json:"last_seconds"`
}

// Measured is what was counted since the start, and the rates of the last
// seconds, as IPVS averages them.
type Measured struct {
	FlowsOpened uint64  `json:"flows_opened"`
	Requests    Traffic `json:"requests"`
	Replies     Traffic `json:"replies"`
	Rates       Rates   `json:"rates"`
}

// Rates are per second.
type Rates struct {
	FlowsOpened uint64  `json:"flows_opened"`
	Requests    Traffic `json:"requests"`
	Replies     Traffic `json:"replies"`
}

// Traffic counts packets as they are on the wire.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
