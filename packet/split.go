package packet

// A Splitter cuts a super-packet into the packets that it stands for, each
// with complete checksums and, where p.Encap is pending, encapsulated.
type Splitter struct{}

// Start begins with p, which stays untouched until the last Next.
func (s *Splitter) Start(p *Packet) {}

// Next builds the next packet in dst's buffer (start Headroom) and says
// whether there was one.
func (s *Splitter) Next(dst *Packet) bool { return false }
