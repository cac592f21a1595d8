package replay

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/uvs-project/uvs/config/compat"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// Play tells a new Director the vector v of f and returns the vector as the
// Director played it: the same inputs with what came of them here.
func Play(f *File, v *Vector) (*Vector, error) { return PlayBeside(f, v, Witness{}) }

// A Witness sees what a Director does besides what it sends.
type Witness struct {
	// Offload is offered every flow that may be carried past the balancer, but
	// carries nothing.
	Offload lb.Offload

	// Packet sees each packet before the Director does; what it returns, if it
	// is not nil, sees what left because of it.
	Packet func(d *Director, in []byte) func(out []Frame)
}

// PlayBeside is Play before a witness.
func PlayBeside(f *File, v *Vector, w Witness) (*Vector, error) {
	d, err := newDirector(&f.Topology, w)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	rulesError, err := d.prepare(f, v)
	if err != nil {
		return nil, err
	}
	played, err := d.PlaySteps(f, v)
	if err != nil {
		return nil, err
	}
	played.RulesError = rulesError
	return played, nil
}

// prepare does what stands in front of the steps, and says what ipvsadm -R
// complained of.
func (d *Director) prepare(f *File, v *Vector) (complaint string, err error) {
	for i := range v.Steps {
		if s := &v.Steps[i]; s.At < 0 || s.Ms < 0 || s.At > longestStory || s.Ms > longestStory || s.Pad < 0 || s.Pad > packet.MaxSize {
			return "", fmt.Errorf("step %d: t_ms, ms or pad is out of range", i)
		}
	}
	for _, s := range v.Sysctl {
		if !d.Sysctl(s) {
			return "", fmt.Errorf("sysctl %q is not known here", s)
		}
	}
	d.marked = v.marks(f)
	for _, line := range v.Setup {
		if err := d.Setup(line); err != nil && !isMarking(line) {
			return "", err
		}
	}
	var status int
	var text string
	for _, rule := range v.Rules {
		var said string
		status, said = d.Ipvsadm(rule)
		text += said
		if status == 2 {
			break // a mistake in the arguments ends the run
		}
	}
	if status != 0 || text != "" {
		complaint = fmt.Sprintf("ipvsadm -R: rc %d %s", status, text)
	}
	return complaint, nil
}

// longestStory is a year, in milliseconds: far more than anything lasts.
const longestStory = 366 * 24 * 3600 * 1000

// step does one step and notes what came of it.
func (d *Director) step(f *File, in, out *Step) error {
	*out = *in
	out.Out, out.Picks, out.Shows, out.Conns, out.Text, out.RC, out.Said = nil, nil, nil, nil, "", 0, nil
	out.Out = append(out.Out, d.Advance(time.Duration(in.At)*time.Millisecond)...)
	switch in.Op {
	case "inject":
		b := append(append([]byte(nil), in.Pkt...), make([]byte, in.Pad)...)
		out.Out = append(out.Out, d.Inject(b, in.Eth, in.L2 != "")...)
		out.Said = d.said
	case "flows":
		return d.flows(f, in, out)
	case "wait":
		out.Out = append(out.Out, d.Advance(time.Duration(in.At+in.Ms)*time.Millisecond)...)
	case "ipvsadm":
		out.RC, out.Text = d.Ipvsadm(in.Cmd)
	case "sysctl":
		if !d.Sysctl(in.Cmd) {
			return fmt.Errorf("sysctl %q is not known here", in.Cmd)
		}
	case "sh":
		return d.Setup(in.Cmd)
	case "show":
		return d.show(in, out)
	default:
		return fmt.Errorf("the step %q is not known", in.Op)
	}
	return nil
}

func (d *Director) flows(f *File, in, out *Step) error {
	for _, flow := range f.FlowSets[in.FlowSet] {
		b, err := flow.build(in.Proto, in.Flags)
		if err != nil {
			return err
		}
		frames := d.Inject(b, "", false)
		n := pick(frames, in.Leg)
		if (n == pickRefused || n == pickReset) && !slices.Contains(out.Picks, n) || n == pickOther {
			out.Out = append(out.Out, frames...)
		}
		out.Picks = append(out.Picks, n)
	}
	return nil
}

func (d *Director) show(in, out *Step) error {
	out.Shows = map[string]string{}
	var errs []error
	for _, what := range in.What {
		if what == "conn" {
			for _, c := range d.connections() {
				out.Conns = append(out.Conns, Conn{
					Proto: c.Proto, Expires: int(c.Expires / time.Second), State: c.State,
					Client: compat.AddrPort(c.Client), Virtual: compat.AddrPort(c.Virtual), Dest: compat.AddrPort(c.Dest), PE: c.EngineData,
				})
			}
			slices.SortFunc(out.Conns, compareConns)
		}
		text, err := d.Show(what)
		errs = append(errs, err)
		out.Shows[what] = text
	}
	return errors.Join(errs...)
}

func compareConns(a, b Conn) int {
	return cmp.Or(
		cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Client, b.Client), cmp.Compare(a.Virtual, b.Virtual),
		cmp.Compare(a.Dest, b.Dest), cmp.Compare(a.State, b.State), cmp.Compare(a.Expires, b.Expires),
	)
}
