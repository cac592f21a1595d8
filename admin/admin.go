// Package admin is how a running director is asked what it does.
//
// A [Server] answers over HTTP on a unix socket, which only those may open who
// may use the director, and on a TCP port for monitoring:
//
//	unix socket   GET /v1/state      the [State] as JSON
//	              GET /v1/flows      the [FlowList] of a [FlowQuery]
//	              GET /v1/explain    the [Explained] of an [ExplainQuery]
//	              GET /v1/drains     what is drained, a list of [DrainState]
//	              POST /v1/drains    begins the drain of a [DrainRequest]
//	              DELETE /v1/drains  undoes that of a [DrainTarget]
//	both          GET /healthz       200 while packets are carried
//	              GET /metrics       for Prometheus
//
// The socket is also the lock of the director: while one has it, no other can
// start on it. [Fetch] and [Send] are the client side.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"
)

// Handlers answer the questions. Any goroutine may call them.
type Handlers struct {
	State   func() State
	Metrics http.Handler
	Healthy func() error // nil while packets are carried, else why not
	Drains  Drainer
	Flows   FlowLister
}

// The bounds of one exchange. Answers are small and their makers quick; who
// is slower than this holds a connection for nothing.
const (
	readTimeout     = 5 * time.Second
	writeTimeout    = 15 * time.Second
	idleTimeout     = time.Minute
	shutdownTimeout = time.Second
	maxHeaderBytes  = 8 << 10
)

// maxConns bounds the connections of each listener; further ones wait to be
// accepted. Whoever can reach the port must not take the file descriptors that
// the director needs.
const maxConns = 128

// A Server is a director's listeners, open since Listen. Run answers on them;
// Close is for a Server that Run was not called for.
type Server struct {
	socket *socket      // nil: none
	tcp    net.Listener // nil: none
}

// Listen opens the unix socket at path, none if it is empty, and the TCP
// address, none if it is not valid. It fails where another director has the
// one, or anybody the other.
func Listen(path string, tcp netip.AddrPort) (*Server, error) {
	s := &Server{}
	var err error
	if path != "" {
		if s.socket, err = listenSocket(path); err != nil {
			return nil, err
		}
	}
	if tcp.IsValid() {
		if s.tcp, err = net.Listen("tcp", tcp.String()); err != nil {
			err = fmt.Errorf("admin.listen: %w; set another address, or \"\" for none", err)
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Run answers until ctx ends, when it returns nil, or a listener fails. The
// Server is closed after it.
func (s *Server) Run(ctx context.Context, h Handlers) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	var servers []*http.Server
	serve := func(l net.Listener, mux *http.ServeMux) {
		srv := &http.Server{
			Handler: mux, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
			MaxHeaderBytes: maxHeaderBytes,
		}
		servers = append(servers, srv)
		go func() {
			defer cancel()
			failed <- srv.Serve(netutil.LimitListener(l, maxConns))
		}()
	}
	if s.socket != nil {
		mux := h.monitoring()
		mux.HandleFunc("GET /v1/state", func(w http.ResponseWriter, _ *http.Request) { answer(w, h.State()) })
		h.Drains.handle(mux)
		h.Flows.handle(mux)
		serve(s.socket.listener, mux)
	}
	if s.tcp != nil {
		serve(s.tcp, h.monitoring())
	}
	<-ctx.Done()

	var errs []error
	for _, srv := range servers {
		grace, done := context.WithTimeout(context.Background(), shutdownTimeout)
		if srv.Shutdown(grace) != nil {
			errs = append(errs, srv.Close())
		}
		done()
	}
	for range servers {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("admin: %w", err))
		}
	}
	return errors.Join(append(errs, s.Close())...)
}

// Close gives the listeners back and removes the socket.
func (s *Server) Close() error {
	var errs []error
	if s.tcp != nil {
		if err := s.tcp.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.socket != nil {
		errs = append(errs, s.socket.close())
		s.socket = nil
	}
	return errors.Join(errs...)
}

// monitoring is what both listeners answer.
func (h *Handlers) monitoring() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.Handle("GET /metrics", h.Metrics)
	return mux
}

func (h *Handlers) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := h.Healthy(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // a client that went away needs no answer
}
