package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

const (
	requests  = 20                     // of each kind, to see how they are spread
	askTime   = 10 * time.Second       // one request may take so long, a lost packet or a busy machine included
	speedTime = 300 * time.Millisecond // each way, to see how fast it goes
	fileSize  = 1 << 20                // bytes of the upload whose checksum is compared
)

// A Result is what became of a Case.
type Result struct {
	Case
	OK       bool     `json:"ok"`
	Errors   []string `json:"errors,omitempty"`
	Seen     []Sight  `json:"seen"` // of one HTTP request and its answer
	HTTP     Spread   `json:"http"`
	UDP      Spread   `json:"udp"`
	Upload   float64  `json:"upload_gbit_per_second"`
	Download float64  `json:"download_gbit_per_second"`
}

// A Spread is how requests were spread over the real servers.
type Spread struct {
	Requests int            `json:"requests"`
	Answered map[string]int `json:"answered"` // by the name of the real server
}

// web is a client that opens a connection for each request. The caller
// closes its idle ones.
func (n *network) web() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.client.Dial, DisableKeepAlives: true, DisableCompression: true}}
}

// fetch does one HTTP request to the case's VIP.
func (n *network) fetch(ctx context.Context, method string, vip netip.AddrPort, path, host string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+vip.String()+path, body)
	if err != nil {
		return nil, err
	}
	request.Host = host
	answer, err := n.web().Do(request)
	if err == nil && answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		err = fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return answer, err
}

// ask is how a client asks over proto who answers.
func (n *network) ask(proto string) func(ctx context.Context, vip netip.AddrPort, token string) (lab.Echo, error) {
	if proto == "udp" {
		return n.udp
	}
	return n.http
}

// http asks by HTTP who answers. The token is in the request and in the answer.
func (n *network) http(ctx context.Context, vip netip.AddrPort, token string) (lab.Echo, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return n.echo(ctx, http.MethodGet, vip, "/", token, nil)
}

// echo does a request whose answer is a lab.Echo.
func (n *network) echo(ctx context.Context, method string, vip netip.AddrPort, path, host string, body io.Reader) (lab.Echo, error) {
	var echo lab.Echo
	answer, err := n.fetch(ctx, method, vip, path, host, body)
	if err != nil {
		return echo, err
	}
	defer answer.Body.Close()
	return echo, json.NewDecoder(answer.Body).Decode(&echo)
}

// udp asks by a datagram, from a port of its own, who answers.
func (n *network) udp(ctx context.Context, vip netip.AddrPort, token string) (lab.Echo, error) {
	var echo lab.Echo
	conn, err := n.client.Dial(ctx, "udp", vip.String())
	if err != nil {
		return echo, err
	}
	n.asked = append(n.asked, conn)
	deadline := time.Now().Add(askTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	conn.SetDeadline(deadline)
	if _, err := io.WriteString(conn, token); err != nil {
		return echo, err
	}
	buf := make([]byte, 2048)
	size, err := conn.Read(buf)
	if err != nil {
		return echo, err
	}
	head, payload, _ := bytes.Cut(buf[:size], []byte("\n"))
	if string(payload) != token {
		return echo, fmt.Errorf("the answer to %q has %q", token, payload)
	}
	return echo, json.Unmarshal(head, &echo)
}

// spread sends requests and counts who answers. Round robin gives each real
// server the same number.
func (n *network) spread(ctx context.Context, r *Result) error {
	kinds := []struct {
		name, proto string
		port        uint16
		to          *Spread
	}{{"http", "tcp", httpPort, &r.HTTP}, {"udp", "udp", udpPort, &r.UDP}}
	for _, k := range kinds {
		*k.to = Spread{Requests: requests, Answered: map[string]int{}}
		for i := range requests {
			echo, err := n.ask(k.proto)(ctx, netip.AddrPortFrom(r.vip(), k.port), fmt.Sprintf("request-%d.demo", i))
			if err != nil {
				return fmt.Errorf("%s request %d of %d: %w", k.name, i+1, requests, err)
			}
			k.to.Answered[echo.Server]++
		}
		for _, rs := range n.rs {
			if got := k.to.Answered[rs.Name]; got != requests/realServers {
				return fmt.Errorf("%s: %s answered %d of %d requests, round robin gives it %d", k.name, rs.Name, got, requests, requests/realServers)
			}
		}
	}
	return nil
}

// measure compares a file's checksum at both ends and sees how fast it goes.
func (n *network) measure(ctx context.Context, r *Result) error {
	vip := netip.AddrPortFrom(r.vip(), httpPort)
	file := make([]byte, fileSize)
	rand.Read(file)
	echo, err := n.echo(ctx, http.MethodPost, vip, "/", "", bytes.NewReader(file))
	if err != nil {
		return fmt.Errorf("upload of %d bytes: %w", fileSize, err)
	}
	if sum := sha256.Sum256(file); echo.SHA256 != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("upload of %d bytes: %d arrived, with another checksum", fileSize, echo.Bytes)
	}

	began := time.Now()
	echo, err = n.echo(ctx, http.MethodPost, vip, "/discard", "", &until{time: began.Add(speedTime)})
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	r.Upload = gbit(echo.Bytes, began)

	began = time.Now()
	answer, err := n.fetch(ctx, http.MethodGet, vip, "/bytes/1000000000000", "", nil)
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	defer answer.Body.Close()
	var got int64
	for buf := make([]byte, 1<<16); time.Since(began) < speedTime; {
		size, err := answer.Body.Read(buf)
		if err != nil {
			return fmt.Errorf("download: %w", errors.Join(err, ctx.Err()))
		}
		got += int64(size)
	}
	r.Download = gbit(got, began)
	return nil
}

// gbit is a rate in Gbit/s.
func gbit(bytes int64, since time.Time) float64 {
	return float64(bytes) * 8 / time.Since(since).Seconds() / 1e9
}

// until is a file that ends at a time.
type until struct{ time time.Time }

func (u *until) Read(b []byte) (int, error) {
	if time.Now().After(u.time) {
		return 0, io.EOF
	}
	return len(b), nil
}
