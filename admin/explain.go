package admin

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// An ExplainQuery names a packet by its addresses, ports and protocol.
type ExplainQuery struct {
	Client, To netip.AddrPort
	Protocol   string // tcp, udp, sctp
}

// ParseExplain reads ADDRESS:PORT and ADDRESS:PORT/PROTOCOL, as a listen is
// written.
func ParseExplain(client, to string) (q ExplainQuery, err error) {
	if q.Client, err = netip.ParseAddrPort(client); err != nil {
		return q, fmt.Errorf("%q is not ADDRESS:PORT", client)
	}
	addr, protocol, _ := strings.Cut(to, "/")
	if q.To, err = netip.ParseAddrPort(addr); err != nil {
		return q, fmt.Errorf("%q is not ADDRESS:PORT/PROTOCOL", to)
	}
	if q.Protocol = protocol; !slices.Contains(protocols, protocol) {
		return q, fmt.Errorf("%q: the protocol behind the slash is none of tcp, udp, sctp", to)
	}
	if q.Client.Addr().Is4() != q.To.Addr().Is4() {
		return q, fmt.Errorf("%v and %v are of different families", q.Client.Addr(), q.To.Addr())
	}
	if q.Client.Addr().Zone()+q.To.Addr().Zone() != "" {
		return q, errors.New("an address with a zone has no flows")
	}
	return q, nil
}

// Path is the path and the query that asks for q.
func (q *ExplainQuery) Path() string {
	return "/v1/explain?" + url.Values{"client": {q.Client.String()}, "to": {q.To.String() + "/" + q.Protocol}}.Encode()
}

// Explained is what would become of a packet, as GET /v1/explain answers.
type Explained struct {
	Verdict string   `json:"verdict"` // send, drop, pass, return
	Reason  string   `json:"reason"`  // as the metrics have it; ok: none
	Means   string   `json:"means"`   // both, in words
	Notes   []string `json:"notes"`   // what may make it come out otherwise

	Service   string `json:"service"`   // empty: none
	Scheduler string `json:"scheduler"` // of the service
	Rule      string `json:"rule"`      // by which the scheduler chooses
	Chosen    string `json:"chosen"`    // why this real server

	Known   bool  `json:"known"`             // there is a flow, else it is the one that would be opened
	Reply   bool  `json:"reply"`             // the packet is one of the real server's
	Flow    *Flow `json:"flow"`              // null: none
	Renewed bool  `json:"renewed,omitempty"` // a client that starts anew gets another flow

	RealServers []Candidate `json:"real_servers"` // of the service, where a flow would be opened
	Ways        []Way       `json:"ways"`         // requests, then replies where they come back this way
}

// A Candidate is a real server for a new flow.
type Candidate struct {
	Address       string `json:"address"`
	Weight        int    `json:"weight"`
	State         string `json:"state"` // as RealServerState has it
	ActiveFlows   int64  `json:"active_flows"`
	InactiveFlows int64  `json:"inactive_flows"`
	Chosen        bool   `json:"chosen"`
	Barred        string `json:"barred,omitempty"` // why no scheduler may choose it
}

// A Way is what is done to one direction of a flow.
type Way struct {
	Direction string `json:"direction"` // requests, replies
	Rewrite   string `json:"rewrite"`
	Egress    string `json:"egress"`
	Lane      bool   `json:"lane"`     // the fast lane carries it
	WhyNot    string `json:"why_road"` // why it does not
}
