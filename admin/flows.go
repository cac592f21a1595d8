package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
)

// Flow is one flow, or with Templates the client that one is persistent for.
type Flow struct {
	Service    string         `json:"service"`
	Mode       string         `json:"mode"`
	Protocol   string         `json:"protocol"` // tcp, udp, sctp; of a template for several: empty
	Client     netip.AddrPort `json:"client"`
	VIP        netip.AddrPort `json:"vip"`
	RealServer netip.AddrPort `json:"real_server"`
	Local      netip.AddrPort `json:"local,omitzero"` // which the real server sees as the client, in fullnat
	State      string         `json:"state"`
	Expires    float64        `json:"expires_seconds"` // if no packet comes
	Runs       string         `json:"runs"`            // see Runs
	Flags      []string       `json:"flags"`           // direct, persistent, pinned, removed
	Flows      int            `json:"flows,omitempty"` // that a template has
}

// Where flows run. A flow whose real server answers the client directly has
// requests only.
const (
	RunsRoad     = "road"     // by uvs
	RunsLane     = "lane"     // in the fast lane, both directions
	RunsRequests = "requests" // only these in the fast lane
	RunsReplies  = "replies"  // only these
)

// FlowList is the answer to GET /v1/flows.
type FlowList struct {
	Flows   []Flow `json:"flows"`   // at most as many as were asked for, in no order
	Matched int    `json:"matched"` // how many there are that were asked for
}

// A FlowQuery says which flows are asked for. Zero values ask for all.
type FlowQuery struct {
	Client, VIP, RealServer Place
	Service, Protocol       string
	State, Runs             string // Runs: RunsLane means the directions that there are, and one of two
	Templates               bool   // the templates of persistent clients, not flows
	Limit                   int    // how many are listed at most; 0: DefaultFlows
}

// How many flows one answer lists. Counting goes on beyond.
const (
	DefaultFlows = 1000
	MaxFlows     = 100_000
)

var protocols = []string{"tcp", "udp", "sctp"}

// A Place is an address or a network, with a port where that is not 0.
type Place struct {
	Prefix netip.Prefix
	Port   uint16
}

// ParsePlace reads ADDRESS, ADDRESS:PORT or NETWORK/BITS.
func ParsePlace(s string) (Place, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return Place{Prefix: p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return Place{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Addr().Zone() == "" {
		return Place{Prefix: netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()), Port: ap.Port()}, nil
	}
	return Place{}, fmt.Errorf("%q is none of ADDRESS, ADDRESS:PORT, [V6ADDRESS]:PORT, NETWORK/BITS", s)
}

// Has says whether ap is at p. Everything is at the zero Place.
func (p Place) Has(ap netip.AddrPort) bool {
	return (!p.Prefix.IsValid() || p.Prefix.Contains(ap.Addr())) && (p.Port == 0 || p.Port == ap.Port())
}

func (p Place) String() string {
	switch {
	case !p.Prefix.IsValid():
		return ""
	case p.Port != 0:
		return netip.AddrPortFrom(p.Prefix.Addr(), p.Port).String()
	}
	return p.Prefix.String()
}

// Path is the path and the query that asks for q.
func (q *FlowQuery) Path() string {
	v := url.Values{}
	for key, s := range map[string]string{
		"client": q.Client.String(), "vip": q.VIP.String(), "real_server": q.RealServer.String(),
		"service": q.Service, "protocol": q.Protocol, "state": q.State, "runs": q.Runs,
	} {
		if s != "" {
			v.Set(key, s)
		}
	}
	if q.Templates {
		v.Set("templates", "true")
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return "/v1/flows?" + v.Encode()
}

// parseFlowQuery is the inverse of Path. It refuses what it does not know.
func parseFlowQuery(v url.Values) (q FlowQuery, err error) {
	for key, values := range v {
		s := values[0]
		var fault error
		switch key {
		case "client":
			q.Client, fault = ParsePlace(s)
		case "vip":
			q.VIP, fault = ParsePlace(s)
		case "real_server":
			q.RealServer, fault = ParsePlace(s)
		case "service":
			q.Service = s
		case "protocol":
			q.Protocol = s
		case "state":
			q.State = s
		case "runs":
			q.Runs = s
		case "templates":
			q.Templates, fault = strconv.ParseBool(s)
		case "limit":
			q.Limit, fault = strconv.Atoi(s)
		default:
			fault = errors.New("not known")
		}
		if fault != nil {
			return q, fmt.Errorf("%s: %w", key, fault)
		}
	}
	return q, q.Check()
}

// Check says what of q cannot be asked for.
func (q *FlowQuery) Check() error {
	if q.Limit < 0 || q.Limit > MaxFlows {
		return fmt.Errorf("limit: %d is not within 1 and %d", q.Limit, MaxFlows)
	}
	if !slices.Contains([]string{"", RunsLane, RunsRoad}, q.Runs) {
		return fmt.Errorf("runs: %q is neither %s nor %s", q.Runs, RunsLane, RunsRoad)
	}
	if q.Protocol != "" && !slices.Contains(protocols, q.Protocol) {
		return fmt.Errorf("protocol: %q is none of tcp, udp, sctp", q.Protocol)
	}
	return nil
}

// A FlowLister answers questions about flows. Errors are the question's fault,
// but for those of the context.
type FlowLister struct {
	List    func(context.Context, FlowQuery) (FlowList, error)
	Explain func(ExplainQuery) (Explained, error)
}

func (l *FlowLister) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/flows", func(w http.ResponseWriter, r *http.Request) {
		q, err := parseFlowQuery(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		list, err := l.List(r.Context(), q)
		answerOr(w, list, err)
	})
	mux.HandleFunc("GET /v1/explain", func(w http.ResponseWriter, r *http.Request) {
		q, err := ParseExplain(r.URL.Query().Get("client"), r.URL.Query().Get("to"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		x, err := l.Explain(q)
		answerOr(w, x, err)
	})
}

// answerOr answers v, or err where the question was wrong.
func answerOr(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answer(w, v)
}
