package replay

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// A File is a file of vectors: what a director was seen to do with given
// packets. Its fields are those of the format, schema 1.
type File struct {
	Schema      int               `json:"schema"`
	Group       string            `json:"group"`
	Description string            `json:"description"`
	Kernel      string            `json:"kernel,omitempty"`
	Ipvsadm     string            `json:"ipvsadm,omitempty"`
	Boots       int               `json:"boots,omitempty"`
	Topology    Topology          `json:"topology"`
	FlowSets    map[string][]Flow `json:"flow_sets"`
	Vectors     []Vector          `json:"vectors"`
}

// A Topology is the network of the director.
type Topology struct {
	Legs       []Leg    `json:"legs"`
	LocalAddrs []string `json:"local_addrs"`
	Routes     []string `json:"routes"`
	Sysctl     []string `json:"sysctl"`
	Note       string   `json:"note,omitempty"`
}

// A Leg is one interface of the director.
type Leg struct {
	Name  string            `json:"name"`
	MAC   string            `json:"mac"`
	MTU   int               `json:"mtu"`
	Addrs []string          `json:"addrs"`
	Roles map[string]string `json:"roles"` // role to MAC
	Neigh map[string]string `json:"neigh"` // address to role
}

// A Flow is what one packet of a flows step is sent from and to.
type Flow struct{ Src, Dst netip.AddrPort }

// UnmarshalJSON reads source, source port, destination, destination port.
func (f *Flow) UnmarshalJSON(b []byte) error {
	var s [4]json.RawMessage
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	if f.Src, err = joined(s[0], s[1]); err == nil {
		f.Dst, err = joined(s[2], s[3])
	}
	return err
}

func joined(addr, port json.RawMessage) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(strings.Trim(string(addr), `"`))
	if err != nil {
		return netip.AddrPort{}, err
	}
	p, err := strconv.ParseUint(strings.Trim(string(port), `"`), 10, 16)
	return netip.AddrPortFrom(a, uint16(p)), err
}

// MarshalJSON is the inverse of UnmarshalJSON.
func (f Flow) MarshalJSON() ([]byte, error) {
	return json.Marshal([4]any{f.Src.Addr(), f.Src.Port(), f.Dst.Addr(), f.Dst.Port()})
}

// A Vector is a small story: the rules of the director, and what happened to
// it step by step.
type Vector struct {
	Name         string   `json:"name"`
	Group        string   `json:"group"`
	Description  string   `json:"description,omitempty"`
	Tags         []string `json:"tags,omitempty"`
	Sysctl       []string `json:"sysctl,omitempty"`
	Setup        []string `json:"setup,omitempty"`
	Rules        []string `json:"rules"`
	RulesError   string   `json:"rules_error,omitempty"`
	Steps        []Step   `json:"steps"`
	Stable       bool     `json:"stable"`
	StableMasked bool     `json:"stable_masked"`
	UnstableWhy  []string `json:"unstable_why,omitempty"`
}

// A Step is one thing that was done to the director, with what came of it.
type Step struct {
	Op   string `json:"op"`
	Note string `json:"note,omitempty"`
	At   int64  `json:"t_ms"` // milliseconds since the start

	Leg  string `json:"leg,omitempty"` // of inject and flows
	From string `json:"from,omitempty"`
	Pkt  Hex    `json:"pkt,omitempty"`
	Pad  int    `json:"pad,omitempty"`
	Eth  string `json:"eth,omitempty"`
	L2   string `json:"l2,omitempty"`

	Proto   string `json:"proto,omitempty"` // of flows
	Flags   string `json:"flags,omitempty"`
	FlowSet string `json:"flow_set,omitempty"`
	Picks   []int  `json:"picks,omitempty"`

	Ms  int64  `json:"ms,omitempty"`  // of wait
	Cmd string `json:"cmd,omitempty"` // of ipvsadm, sysctl and sh
	RC  int    `json:"rc,omitempty"`

	Text string `json:"text,omitempty"`

	What  []string          `json:"what,omitempty"` // of show
	Shows map[string]string `json:"shows,omitempty"`
	Conns []Conn            `json:"conns,omitempty"`

	Out []Frame `json:"out,omitempty"`

	// Said is what a Director decided about the packet of an inject, where that
	// is more than to carry it: for people, and in no file.
	Said []string `json:"-"`
}

// A Frame is a packet that left the director.
type Frame struct {
	Leg      string  `json:"leg"`
	To       string  `json:"to"` // role of the destination MAC
	Pkt      Hex     `json:"pkt"`
	Eth      string  `json:"eth,omitempty"`
	Volatile []Range `json:"volatile,omitempty"`
}

// A Range is part of a packet that is another at each run.
type Range struct {
	Off  int    `json:"off"`
	Len  int    `json:"len"`
	What string `json:"what"`
}

// A Conn is one line of a listing of connections.
type Conn struct {
	Proto   string `json:"proto"`
	Expires int    `json:"expires_s"`
	State   string `json:"state"`
	Client  string `json:"client"`
	Virtual string `json:"virtual"`
	Dest    string `json:"dest"`
	PE      string `json:"pe,omitempty"`
}

// Hex is bytes that are hexadecimal digits in a file.
type Hex []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(b []byte) error {
	*h = make(Hex, hex.DecodedLen(len(b)))
	_, err := hex.Decode(*h, b)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// ReadFile reads a file of vectors, compressed where its name ends in .gz.
func ReadFile(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		r = z
	}
	v, err := Read(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// Read reads a file of vectors.
func Read(r io.Reader) (*File, error) {
	var f File
	if err := json.NewDecoder(r).Decode(&f); err != nil {
		return nil, fmt.Errorf("not a file of vectors: %w", err)
	}
	if f.Schema != 1 {
		return nil, fmt.Errorf("schema %d: this program knows schema 1", f.Schema)
	}
	return &f, nil
}
