package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// secured does the handshake of TLS, and nothing on it.
type secured struct{ config *tls.Config }

func newSecured(o *Options) (Check, error) {
	config, err := o.TLS.client(o.Host)
	if err != nil {
		return nil, err
	}
	return &secured{config}, nil
}

func (c *secured) Check(ctx context.Context, to Target) error {
	conn, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = handshakeTLS(ctx, conn, c.config)
	return err
}

// handshakeTLS secures conn.
func handshakeTLS(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	c := tls.Client(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return c, nil
}

// TLS says how a check secures its connection.
type TLS struct {
	ServerName string // SNI, and the name that the certificate must have; default: the Host of the check, if that is a name
	CA         string // PEM file of those who may sign; "system": those that the host trusts; empty: the certificate is not verified
	Cert, Key  string // PEM files of the check's own certificate, if the real server asks for one
}

// SystemCA as a TLS.CA stands for those that the host trusts.
const SystemCA = "system"

// client reads the files of t. host is the name where t has none.
func (t *TLS) client(host string, protocols ...string) (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, NextProtos: protocols}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	switch t.CA {
	case "":
		c.InsecureSkipVerify = true
	case SystemCA:
	default:
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA %s: no certificate in it (PEM)", t.CA)
		}
	}
	if t.CA != "" && c.ServerName == "" {
		return nil, errors.New("CA: without a name that the certificate must have; give a server name or a host")
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
