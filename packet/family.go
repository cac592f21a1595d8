package packet

func (p *Packet) translateFamily(src, dst *Endpoint) Reason { return CannotTranslate }
