package replay

import "github.com/uvs-project/uvs/config/compat"

// zero sets the counters of a service, or of all, back.
func (d *Director) zero(c *compat.Command) error {
	name := ""
	if c.Service != nil {
		name = c.Service.Key.String()
	}
	return d.balancer.Zero(name)
}
