package config

import (
	"fmt"
	"time"
)

// Persistence sends the flows of one client of a service to one real server.
// In a section that is there, what was not set has its default.
type Persistence struct {
	Timeout  time.Duration     `mapstructure:"timeout"`   // after the client's last new flow; 0: there is no section
	PrefixV4 int               `mapstructure:"prefix_v4"` // bits that tell an IPv4 client from others
	PrefixV6 int               `mapstructure:"prefix_v6"`
	Engine   PersistenceEngine `mapstructure:"engine"`
}

// PersistenceEngine finds the client in the packets' payload.
type PersistenceEngine string

// The engines.
const (
	NoEngine  PersistenceEngine = "none"
	SIPEngine PersistenceEngine = "sip" // the Call-ID of SIP over UDP
)

// persistenceDefaults are those of a section that is there, as ipvsadm -p has
// them.
var persistenceDefaults = map[string]any{
	"timeout":   "360s",
	"prefix_v4": 32,
	"prefix_v6": 128,
	"engine":    string(NoEngine),
}

// The longest persistence, as ipvsadm -p, and the shortest.
const (
	minPersistence = time.Second
	maxPersistence = 31 * 24 * time.Hour
)

func (fs *faults) checkPersistence(path string, s *Service) {
	p := &s.Persistence
	if *p == (Persistence{}) {
		return
	}
	if p.Timeout < minPersistence || p.Timeout > maxPersistence {
		fs.add(path+".timeout", "%v is out of range, %v to %v", p.Timeout, minPersistence, maxPersistence)
	}
	fs.between(path+".prefix_v4", p.PrefixV4, 0, 32)
	fs.between(path+".prefix_v6", p.PrefixV6, 0, 128)
	oneOf(fs, path+".engine", p.Engine, NoEngine, SIPEngine)
	for _, l := range s.Listen {
		if p.Engine == SIPEngine && l.Protocol != UDP && l.Addr.IsValid() {
			fs.add(path+".engine", "sip reads UDP only, and the service listens on %v", l)
		}
	}
}

// checkKeptPorts notes a port of a real server that could have no effect: a
// persistent service on every port leaves the client's.
func (fs *faults) checkKeptPorts(path string, s *Service) {
	if s.Persistence.Timeout == 0 {
		return
	}
	for _, l := range s.Listen {
		if !l.EveryPort() {
			continue
		}
		for j, rs := range s.RealServers {
			if rs.Address.Port() != 0 {
				fs.add(fmt.Sprintf("%s.real_servers[%d].address", path, j), "the service is persistent over every port, so the client's port stays; write the address without a port")
			}
		}
	}
}

// maxThreshold is the largest number of flows that ipvsadm -x takes.
const maxThreshold = 1<<31 - 1

func (fs *faults) checkThresholds(path string, rs *RealServer) {
	fs.between(path+".max_flows", rs.MaxFlows, 0, maxThreshold)
	fs.between(path+".min_flows", rs.MinFlows, 0, maxThreshold)
	switch {
	case rs.MinFlows > 0 && rs.MaxFlows == 0:
		fs.add(path+".min_flows", "it says when a real server at its max_flows gets new flows again, and there is no max_flows")
	case rs.MaxFlows > 0 && rs.MinFlows > rs.MaxFlows:
		fs.add(path+".min_flows", "%d is above max_flows, %d", rs.MinFlows, rs.MaxFlows)
	}
}
