package health

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

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
