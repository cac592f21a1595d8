package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// dns asks a name server for one record over UDP (RFC 1035). It is good if
// there is one or, where one is wanted, if that is among the answers.
type dns struct {
	name   dnsmessage.Name
	record dnsmessage.Type
	want   string
}

// records are the types that can be asked for, by their names in the
// configuration.
var records = map[string]dnsmessage.Type{
	"A":     dnsmessage.TypeA,
	"AAAA":  dnsmessage.TypeAAAA,
	"CNAME": dnsmessage.TypeCNAME,
	"MX":    dnsmessage.TypeMX,
	"NS":    dnsmessage.TypeNS,
	"SOA":   dnsmessage.TypeSOA,
	"TXT":   dnsmessage.TypeTXT,
}

func newDNS(o *Options) (Check, error) {
	name, record := o.Name, o.Record
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	if record == "" {
		record = "A"
	}
	c := &dns{want: o.Receive}
	var ok bool
	if c.record, ok = records[record]; !ok {
		return nil, fmt.Errorf("record %q is not known", record)
	}
	var err error
	if c.name, err = dnsmessage.NewName(name); err == nil {
		_, err = c.question(0)
	}
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", name, err)
	}
	return c, nil
}

func (c *dns) question(id uint16) ([]byte, error) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: c.name, Type: c.record, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

func (c *dns) Check(ctx context.Context, to Target) error {
	conn, err := to.dial(ctx, "udp")
	if err != nil {
		return err
	}
	defer conn.Close()
	id := uint16(rand.Uint32())
	question, err := c.question(id)
	if err != nil {
		return err
	}
	if _, err := conn.Write(question); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:n]); err != nil {
			return fmt.Errorf("no DNS answer: %w", err)
		}
		if m.Response && m.ID == id {
			return c.judge(&m)
		}
	}
}

func (c *dns) judge(m *dnsmessage.Message) error {
	if m.RCode != dnsmessage.RCodeSuccess {
		return fmt.Errorf("answer %s", strings.TrimPrefix(m.RCode.String(), "RCode"))
	}
	var got []string
	for _, a := range m.Answers {
		if a.Header.Type == c.record {
			got = append(got, contentOf(a.Body))
		}
	}
	switch {
	case len(got) == 0:
		return errors.New("no such record in the answer")
	case c.want != "" && !slices.Contains(got, c.want):
		return fmt.Errorf("no %s among the answers %s", c.want, strings.Join(got, ", "))
	}
	return nil
}

// contentOf is a record as a zone file has it.
func contentOf(body dnsmessage.ResourceBody) string {
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(r.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(r.AAAA).String()
	case *dnsmessage.CNAMEResource:
		return r.CNAME.String()
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %s", r.Pref, r.MX)
	case *dnsmessage.NSResource:
		return r.NS.String()
	case *dnsmessage.SOAResource:
		return r.NS.String()
	case *dnsmessage.TXTResource:
		return strings.Join(r.TXT, "")
	}
	return ""
}
