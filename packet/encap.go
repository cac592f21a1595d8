package packet

// Prepend encapsulates p by its pending Encap; p must not be a super-packet.
func (p *Packet) Prepend() Reason { return CannotTranslate }
