package config

import "time"

// Announcement says when VIPs are announced to routers.
type Announcement struct {
	VIPUp    VIPUp         `mapstructure:"vip_up"`
	HoldDown time.Duration `mapstructure:"hold_down"` // 0: none
	MEDSpan  int           `mapstructure:"med_span"`  // added to the MED of a VIP without healthy real servers; 0: no grades

	// DegradedBelow is the share of healthy weight, in per cent, below which a
	// VIP counts as degraded.
	DegradedBelow int `mapstructure:"degraded_below"`

	// SelfProbe has a VIP announced only once it has answered the host's ping.
	SelfProbe bool `mapstructure:"self_probe"`
}

// VIPUp says how many of a VIP's services must be up for it to be announced.
type VIPUp string

// The settings of VIPUp.
const (
	VIPUpAny VIPUp = "any"
	VIPUpAll VIPUp = "all"
)

const (
	maxHoldDown = time.Hour
	maxMED      = 1<<32 - 1
)

func (fs *faults) checkAnnouncement() {
	a := &fs.cfg.Announcement
	oneOf(fs, "announcement.vip_up", a.VIPUp, VIPUpAny, VIPUpAll)
	fs.duration("announcement.hold_down", a.HoldDown, 0, maxHoldDown)
	fs.between("announcement.med_span", a.MEDSpan, 0, maxMED)
	fs.between("announcement.degraded_below", a.DegradedBelow, 1, 100)
}

// checkQuorum notes a quorum that can never be reached, or never lost.
func (fs *faults) checkQuorum(path string, s *Service) {
	sum := s.weights()
	fs.between(path+".quorum", s.Quorum, 1, max(1, sum))
	if s.Hysteresis < 0 || s.Hysteresis > max(0, s.Quorum-1) {
		fs.add(path+".quorum_hysteresis", "%d is not within 0 and %d, which is below the quorum", s.Hysteresis, max(0, s.Quorum-1))
	}
	if s.Hysteresis > 0 && s.Quorum+s.Hysteresis > sum {
		fs.add(path+".quorum_hysteresis", "quorum and hysteresis are %d together, more than the weights of all real servers, %d", s.Quorum+s.Hysteresis, sum)
	}
}

// weights is the sum of the weights of all real servers.
func (s *Service) weights() (sum int) {
	for i := range s.RealServers {
		sum += s.RealServers[i].Weight
	}
	return sum
}

// Sorry is the sorry server as a real server that gets no flows; ok is false
// where there is none.
func (s *Service) Sorry() (rs RealServer, ok bool) {
	return RealServer{Address: s.SorryServer, Mode: s.Mode, Tunnel: s.Tunnel}, s.SorryServer.IsValid()
}

func (fs *faults) checkSorry(path string, s *Service) {
	rs, ok := s.Sorry()
	if !ok {
		return
	}
	if s.FailOpen {
		fs.add(path, "a service that fails open has no use for it")
	}
	fs.checkServerAddress(path, s, &rs, s.RealServers)
}
