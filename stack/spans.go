package stack

import "slices"

// spans are the bytes of a datagram that have come, as ranges in order, none
// of which touches the next.
type spans struct {
	list  []span
	total int // bytes of the whole; 0 until the last fragment tells
}

type span struct{ from, to int }

// maxSpans bounds the gaps between the fragments of one datagram.
const maxSpans = 64

// A fit says how a fragment goes with those that came before.
type fit uint8

const (
	fits     fit = iota
	repeats      // all of it has come
	overlaps     // some of it has come, or it contradicts what is known of the length
	tooMany      // it would be one gap too many
)

// add notes that the bytes from to to have come; more says that others follow
// them. What does not fit changes nothing. As in the kernel, a fragment that
// came before is harmless, while one that overlaps another spoils the datagram
// (RFC 5722, RFC 8200 section 4.5).
func (s *spans) add(from, to int, more bool) fit {
	end := 0 // of what has come
	if n := len(s.list); n > 0 {
		end = s.list[n-1].to
	}
	switch {
	case from == to, s.total != 0 && to > s.total, !more && (to < end || s.total != 0 && to != s.total):
		return overlaps
	}
	i, _ := slices.BinarySearchFunc(s.list, from, func(x span, from int) int { return x.to - from })
	// list[i] is the first that ends at from or behind it.
	touches := i < len(s.list) && s.list[i].to == from
	next := i
	if touches {
		next++
	}
	if next < len(s.list) && s.list[next].from < to {
		if s.list[next].from <= from && to <= s.list[next].to {
			return repeats
		}
		return overlaps
	}
	joins := next < len(s.list) && s.list[next].from == to
	switch {
	case touches && joins:
		s.list[i].to = s.list[next].to
		s.list = slices.Delete(s.list, next, next+1)
	case touches:
		s.list[i].to = to
	case joins:
		s.list[next].from = from
	case len(s.list) == maxSpans:
		return tooMany
	default:
		s.list = slices.Insert(s.list, i, span{from, to})
	}
	if !more {
		s.total = to
	}
	return fits
}

// complete says whether all has come.
func (s *spans) complete() bool {
	return s.total != 0 && len(s.list) == 1 && s.list[0] == span{0, s.total}
}
