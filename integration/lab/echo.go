package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// An Echo is what an echo server says about a request: who answered and what it saw.
type Echo struct {
	Server string `json:"server"`           // the name that the server was given
	Client string `json:"client"`           // source address and port as the server saw them
	Local  string `json:"local"`            // destination address and port as the server saw them
	Host   string `json:"host,omitempty"`   // HTTP: the Host field of the request
	Bytes  int64  `json:"bytes"`            // length of the payload
	SHA256 string `json:"sha256,omitempty"` // HTTP: of the payload
}

// ServeHTTP answers requests on ln until ctx ends:
//
//	GET  /            an Echo
//	POST /            an Echo with length and checksum of the body
//	POST /discard     an Echo with only the length of the body, for speed
//	GET  /bytes/N     N bytes
func ServeHTTP(ctx context.Context, ln net.Listener, name string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "how many bytes?", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		io.CopyN(w, pattern{}, n)
	})
	mux.HandleFunc("POST /discard", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return // the client has gone
		}
		json.NewEncoder(w).Encode(Echo{Server: name, Client: r.RemoteAddr, Host: r.Host, Bytes: n})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			return // the client has gone
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		json.NewEncoder(w).Encode(Echo{
			Server: name, Client: r.RemoteAddr, Local: local.String(), Host: r.Host,
			Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil)),
		})
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pattern is an endless stream of bytes that do not repeat within a segment.
type pattern struct{}

func (pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i % 251)
	}
	return len(b), nil
}

// ServeUDP answers each datagram on pc with an Echo, a new line and the
// datagram itself, until ctx ends.
func ServeUDP(ctx context.Context, pc net.PacketConn, name string) error {
	stop := context.AfterFunc(ctx, func() { pc.Close() })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			continue // an ICMP error about an earlier answer
		}
		head, err := json.Marshal(Echo{Server: name, Client: from.String(), Local: pc.LocalAddr().String(), Bytes: int64(n)})
		if err != nil {
			return err
		}
		pc.WriteTo(append(append(head, '\n'), buf[:n]...), from)
	}
}

// ServeEcho runs ServeHTTP on the TCP addresses and ServeUDP on the UDP addresses
// until ctx ends, and closes ready when all of them are open. It is the body
// of a process that runs inside a host.
func ServeEcho(ctx context.Context, name string, tcp, udp []string, ready chan<- struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var serve []func() error
	for _, addr := range tcp {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		defer ln.Close()
		serve = append(serve, func() error { return ServeHTTP(ctx, ln, name) })
	}
	for _, addr := range udp {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		defer pc.Close()
		serve = append(serve, func() error { return ServeUDP(ctx, pc, name) })
	}
	close(ready)
	errs := make([]error, len(serve))
	var wg sync.WaitGroup
	for i, s := range serve {
		wg.Go(func() {
			errs[i] = s()
			cancel() // one that fails ends the others
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
