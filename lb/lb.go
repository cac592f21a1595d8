// Package lb decides what becomes of a packet sent to a virtual IP.
package lb
