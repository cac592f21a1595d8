// Package conformance holds uvs against what a real kernel's IPVS was seen to
// do: every recorded vector is played by package replay and compared.
package conformance
