// Package lb decides what becomes of a packet sent to a virtual IP.
//
// A [Balancer] is told by [Balancer.Apply] what to balance: services, each a
// set of VIPs with ports, and their real servers. It builds a snapshot of that
// and swaps it in whole; a reload never changes anything in place.
//
// A packet enters by [Queue.Handle], one Queue per goroutine that reads
// packets, and takes this road:
//
//	Tuple ─► Table ──hit──────────────────────────┐
//	           │ miss                             ▼
//	           ▼                          RealServer's Mode
//	         VIP? ─► service ─► Scheduler.Pick ─► Rewrite, applied by packet
//
// The [Table] remembers the choice: a [Flow] keeps the [RealServer] and with
// it the [Mode] that opened it. Package lb/sched has the schedulers, package
// modes the modes.
//
// While handling a packet this package reads no clock, never holds two locks,
// allocates nothing and logs nothing: time is an argument and counters are the
// report.
package lb
