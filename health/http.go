package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// web asks for a page over HTTP/1.1, on a connection of its own each time.
// Redirects are answers like others.
type web struct {
	method, host string
	url          *url.URL
	expect       []Codes
	body         []byte
	tls          *tls.Config // nil: not encrypted
}

func newHTTP(o *Options) (Check, error) { return newWeb(o) }

func newHTTPS(o *Options) (Check, error) {
	c, err := newWeb(o)
	if err != nil {
		return nil, err
	}
	if c.tls, err = o.TLS.client(o.Host, "http/1.1"); err != nil {
		return nil, err
	}
	return c, nil
}

func newWeb(o *Options) (*web, error) {
	c := &web{method: o.Method, host: o.Host, expect: o.Expect, body: []byte(o.Body)}
	if c.method == "" {
		c.method = http.MethodGet
	}
	if len(c.expect) == 0 {
		c.expect = []Codes{{200, 399}}
	}
	path := o.Path
	if path == "" {
		path = "/"
	}
	var err error
	if c.url, err = url.ParseRequestURI(path); err != nil || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("path %q is not one of a page, such as /healthz", path)
	}
	if _, err = http.NewRequest(c.method, "http://check"+path, nil); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *web) Check(ctx context.Context, to Target) error {
	conn, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.tls != nil {
		if conn, err = handshakeTLS(ctx, conn, c.tls); err != nil {
			return err
		}
	}
	host := c.host
	if host == "" {
		host = to.Addr.String()
	}
	req := &http.Request{
		Method: c.method, URL: c.url, Host: host, ProtoMajor: 1, ProtoMinor: 1, Close: true,
		Header: http.Header{"User-Agent": {userAgent}},
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(io.LimitReader(conn, maxAnswer), 1024), req)
	if err != nil {
		return fmt.Errorf("no HTTP answer: %w", err)
	}
	defer resp.Body.Close()
	return c.judge(resp)
}

// userAgent is how checks name themselves in the logs of real servers.
const userAgent = "uvs-health"

func (c *web) judge(resp *http.Response) error {
	good := func(s Codes) bool { return s.First <= resp.StatusCode && resp.StatusCode <= s.Last }
	if !slices.ContainsFunc(c.expect, good) {
		return fmt.Errorf("status %s", resp.Status)
	}
	if len(c.body) == 0 {
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	if bytes.Contains(body, c.body) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("no %q in the page %s: %w", c.body, excerpt(body), err)
	}
	return fmt.Errorf("no %q in the page %s", c.body, excerpt(body))
}
