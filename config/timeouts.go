package config

import (
	"reflect"
	"time"
)

// Timeouts are for how long a flow without packets is remembered, one for each
// state of IPVS. The first four are those that flows spend their lives in.
type Timeouts struct {
	TCP    time.Duration `mapstructure:"tcp"`     // an established connection
	TCPFIN time.Duration `mapstructure:"tcp_fin"` // a connection that is being closed, FIN_WAIT
	UDP    time.Duration `mapstructure:"udp"`
	SCTP   time.Duration `mapstructure:"sctp"` // an established association

	TCPNone      time.Duration `mapstructure:"tcp_none"`
	TCPSynSent   time.Duration `mapstructure:"tcp_syn_sent"`
	TCPSynRecv   time.Duration `mapstructure:"tcp_syn_recv"`
	TCPTimeWait  time.Duration `mapstructure:"tcp_time_wait"`
	TCPClose     time.Duration `mapstructure:"tcp_close"`
	TCPCloseWait time.Duration `mapstructure:"tcp_close_wait"`
	TCPLastACK   time.Duration `mapstructure:"tcp_last_ack"`
	TCPListen    time.Duration `mapstructure:"tcp_listen"`
	TCPSynACK    time.Duration `mapstructure:"tcp_synack"`

	SCTPNone             time.Duration `mapstructure:"sctp_none"`
	SCTPInit1            time.Duration `mapstructure:"sctp_init1"`
	SCTPInit             time.Duration `mapstructure:"sctp_init"`
	SCTPCookieSent       time.Duration `mapstructure:"sctp_cookie_sent"`
	SCTPCookieReplied    time.Duration `mapstructure:"sctp_cookie_replied"`
	SCTPCookieWait       time.Duration `mapstructure:"sctp_cookie_wait"`
	SCTPCookie           time.Duration `mapstructure:"sctp_cookie"`
	SCTPCookieEchoed     time.Duration `mapstructure:"sctp_cookie_echoed"`
	SCTPShutdownSent     time.Duration `mapstructure:"sctp_shutdown_sent"`
	SCTPShutdownReceived time.Duration `mapstructure:"sctp_shutdown_received"`
	SCTPShutdownACKSent  time.Duration `mapstructure:"sctp_shutdown_ack_sent"`
	SCTPRejected         time.Duration `mapstructure:"sctp_rejected"`
	SCTPClosed           time.Duration `mapstructure:"sctp_closed"`
}

// defaultTimeouts are those of IPVS.
func defaultTimeouts() Timeouts {
	return Timeouts{
		TCP:    900 * time.Second,
		TCPFIN: 120 * time.Second,
		UDP:    300 * time.Second,
		SCTP:   900 * time.Second,

		TCPNone:      2 * time.Second,
		TCPSynSent:   120 * time.Second,
		TCPSynRecv:   60 * time.Second,
		TCPTimeWait:  120 * time.Second,
		TCPClose:     10 * time.Second,
		TCPCloseWait: 60 * time.Second,
		TCPLastACK:   30 * time.Second,
		TCPListen:    120 * time.Second,
		TCPSynACK:    120 * time.Second,

		SCTPNone:             2 * time.Second,
		SCTPInit1:            4 * time.Second,
		SCTPInit:             61 * time.Second,
		SCTPCookieSent:       61 * time.Second,
		SCTPCookieReplied:    61 * time.Second,
		SCTPCookieWait:       61 * time.Second,
		SCTPCookie:           61 * time.Second,
		SCTPCookieEchoed:     61 * time.Second,
		SCTPShutdownSent:     61 * time.Second,
		SCTPShutdownReceived: 61 * time.Second,
		SCTPShutdownACKSent:  61 * time.Second,
		SCTPRejected:         4 * time.Second,
		SCTPClosed:           61 * time.Second,
	}
}

// inherit takes from other Timeouts those that t does not set.
func (t *Timeouts) inherit(from *Timeouts) {
	own, theirs := reflect.ValueOf(t).Elem(), reflect.ValueOf(from).Elem()
	for i := range own.NumField() {
		if own.Field(i).IsZero() {
			own.Field(i).Set(theirs.Field(i))
		}
	}
}

// checkTimeouts notes the values out of range that t does not have from other
// Timeouts, which are checked by themselves.
func (fs *faults) checkTimeouts(path string, t, from *Timeouts) {
	own, theirs := reflect.ValueOf(t).Elem(), reflect.ValueOf(from).Elem()
	for i := range own.NumField() {
		if own.Field(i).Equal(theirs.Field(i)) {
			continue
		}
		key := own.Type().Field(i).Tag.Get("mapstructure")
		fs.duration(path+"."+key, own.Field(i).Interface().(time.Duration), minTimeout, maxTimeout)
	}
}
