package demo

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// width is how many columns a line has at most.
const width = 100

// The escape sequences of the colours (ECMA-48).
const (
	bold, dim, red, green = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m"
	plain                 = "\x1b[0m"
)

// A printer shows the demo to a person.
type printer struct {
	out   io.Writer
	color bool
	text  strings.Builder // not yet written
}

// flush writes what has been shown since the last time.
func (p *printer) flush() error {
	_, err := io.WriteString(p.out, p.text.String())
	p.text.Reset()
	return err
}

func (p *printer) printf(format string, a ...any) { fmt.Fprintf(&p.text, format, a...) }

// paint gives text a colour, where there are any.
func (p *printer) paint(colour, text string) string {
	if !p.color {
		return text
	}
	return colour + text + plain
}

func (p *printer) topology() {
	p.printf("%s\n%s\n", p.paint(bold, "uvs demo: every mode, in network namespaces of its own"), p.paint(dim, topology))
}

var familyNames = map[string]string{ipv4: "IPv4", ipv6: "IPv6"}

// title names a case for a person.
func (c Case) title() string {
	words := []string{c.Mode}
	if c.Tunnel != "" {
		words = append(words, c.Tunnel)
	}
	words = append(words, familyNames[c.Family])
	if c.RealServers != c.Family {
		words = append(words, "to", familyNames[c.RealServers], "real servers")
	}
	return strings.Join(words, " ")
}

// result shows a case: what each side saw, how requests were spread, how fast.
func (p *printer) result(r *Result) {
	mark := p.paint(green, "✓ pass")
	if !r.OK {
		mark = p.paint(red, "✗ FAIL")
	}
	head := fmt.Sprintf("━━ %s ", r.title())
	p.printf("%s%s %s\n", p.paint(bold, head), strings.Repeat("━", width-utf8.RuneCountInString(head)-len("✓ pass")+1), mark)
	host, direct := "", r.owned()
	for i, s := range r.Seen {
		label := ""
		switch {
		case i == 0:
			label = "request"
		case strings.HasPrefix(s.Host, "rs") && s.Sent:
			label = "answer"
		}
		if label != "" {
			host = ""
		}
		p.sight(label, host, s, direct)
		host = s.Host
	}
	if r.HTTP.Requests > 0 {
		p.printf("   %s http %s   udp %s\n", p.paint(dim, "spread  "), r.HTTP, r.UDP)
	}
	if r.Download > 0 {
		past := ""
		if direct {
			past = p.paint(dim, " past the director")
		}
		p.printf("   %s up %.1f Gbit/s, down %.1f Gbit/s%s\n", p.paint(dim, "speed   "), r.Upload, r.Download, past)
	}
	for _, e := range r.Errors {
		for line := range strings.Lines(e) {
			p.printf("   %s %s\n", p.paint(red, "✗"), strings.TrimRight(line, "\n"))
		}
	}
	p.printf("\n")
}

// sight shows a packet at a place. The host's name is left out where the line
// before has it.
func (p *printer) sight(label, before string, s Sight, direct bool) {
	host, verb := s.Host, "gets "
	if host == before {
		host = ""
	}
	if s.Sent {
		verb = "sends"
	}
	where := fmt.Sprintf("   %-8s %-9s%s ", label, host, verb)
	text := fmt.Sprintf("%v → %v", s.Src, s.Dst)
	if s.Tunnel != "" {
		outer := fmt.Sprintf("%v → %v %s", s.From, s.Into, s.Tunnel)
		gap := " "
		if len(where)+utf8.RuneCountInString(outer+gap+text)+2 > width {
			gap = "\n" + strings.Repeat(" ", len(where)+2)
		}
		text = outer + gap + "(" + text + ")"
	}
	switch {
	case s.Sent && s.Host == "director" && strings.HasPrefix(s.To, "rs") && s.Tunnel == "" && direct:
		text += p.paint(dim, "   in a frame to "+s.To)
	case s.Sent && strings.HasPrefix(s.Host, "rs") && direct:
		text += p.paint(dim, "   past the director")
	}
	p.printf("%s%s\n", p.paint(dim, where), text)
}

// String is the spread in words.
func (s Spread) String() string {
	total := 0
	for _, n := range s.Answered {
		total += n
	}
	words := fmt.Sprintf("%d of %d answered:", total, s.Requests)
	for i := range realServers {
		name := fmt.Sprintf("rs%d", i+1)
		words += fmt.Sprintf(" %s %d,", name, s.Answered[name])
	}
	return strings.TrimSuffix(words, ",")
}

// verdict is the last line. said is the director's log, which helps where a case failed.
func (p *printer) verdict(r *Report, said string) {
	var failed []string
	for i := range r.Cases {
		if !r.Cases[i].OK {
			failed = append(failed, r.Cases[i].title())
		}
	}
	if r.OK {
		p.printf("%s %d of %d cases in %.0f s\n", p.paint(green, "pass:"), len(r.Cases), len(r.Cases), r.Seconds)
		return
	}
	p.printf("%s\n%s\n", p.paint(dim, "The director said:"), strings.TrimSpace(said))
	p.printf("%s %d of %d cases: %s\n", p.paint(red, "fail:"), len(failed), len(r.Cases), strings.Join(failed, ", "))
}

// hold tells how to look around.
func (p *printer) hold(n *network, r *Report) {
	in := func(host string) string { return "ip netns exec " + host }
	first := r.Cases[0].vip()
	p.printf(`
It all stays up until Ctrl-C. Look around from another terminal:

  %[1]s curl http://%[2]v/          who answers, by %[3]s
  %[4]s %[5]s status --socket %[6]s
  %[4]s ip rule                               how packets get into uvs
  %[4]s tcpdump -ni lan                       what leaves for the real servers
  %[7]s %[5]s realserver show
`, in(n.client.Namespace), first, r.Cases[0].title(), in(n.director.Namespace), n.program, n.socket(), in(n.rs[0].Namespace))
	p.printf("\n  the VIPs, HTTP on port %d and a UDP echo on port %d:\n", httpPort, udpPort)
	for i := range r.Cases {
		p.printf("    %-40v %s\n", r.Cases[i].vip(), r.Cases[i].title())
	}
}
