package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"
)

// A DrainTarget names what is drained: the node, a VIP, or a real server, of
// one service or of all.
type DrainTarget struct {
	Node    bool           `json:"node,omitempty"`
	VIP     netip.Addr     `json:"vip,omitzero"`
	Service string         `json:"service,omitempty"`
	Server  netip.AddrPort `json:"server,omitzero"`
}

// A DrainRequest is the body of POST /v1/drains. Times are nanoseconds.
type DrainRequest struct {
	DrainTarget
	Deadline time.Duration `json:"deadline"` // at the latest
	Flows    int64         `json:"flows"`    // so many active ones may be left
	Quiet    time.Duration `json:"quiet"`    // no packet from a client for so long; 0 does not count
	Exit     bool          `json:"exit"`     // the director stops when the node is drained
}

// DrainState is one drain, as GET /v1/drains lists them.
type DrainState struct {
	DrainTarget
	What     string    `json:"what"`
	Phase    string    `json:"phase"` // leaving, gone
	Cause    string    `json:"cause"` // why it is gone
	Began    time.Time `json:"began"`
	Deadline time.Time `json:"deadline"`
	Flows    int64     `json:"flows"` // active ones that are left
}

// A Drainer does what requests ask. An error of Start or Undo is the
// request's fault.
type Drainer struct {
	List  func() []DrainState
	Start func(context.Context, DrainRequest) error
	Undo  func(context.Context, DrainTarget) error
}

// maxRequest bounds the body of a request.
const maxRequest = 64 << 10

func (d *Drainer) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/drains", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.List()) })
	mux.HandleFunc("POST /v1/drains", func(w http.ResponseWriter, r *http.Request) {
		var request DrainRequest
		if read(w, r, &request) {
			done(w, d.Start(r.Context(), request))
		}
	})
	mux.HandleFunc("DELETE /v1/drains", func(w http.ResponseWriter, r *http.Request) {
		var target DrainTarget
		if read(w, r, &target) {
			done(w, d.Undo(r.Context(), target))
		}
	})
}

// read decodes the body of r strictly and says whether it could.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	body.DisallowUnknownFields()
	if err := body.Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// done answers a request that gives nothing back.
func done(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answer(w, struct{}{})
}
