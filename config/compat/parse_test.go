package compat_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/config/compat"
)

// TestSaveRestores reads rules in every form that ipvsadm takes and wants them
// saved as ipvsadm -S -n saves them.
func TestSaveRestores(t *testing.T) {
	tests := []struct{ name, rules, want string }{
		{"as they are saved", savedRules, savedRules},
		{"the program's name in front, long options, defaults",
			"ipvsadm --add-service --tcp-service 192.0.2.10:80\nipvsadm --add-server -t 192.0.2.10:80 --real-server 10.0.0.1\n",
			"-A -t 192.0.2.10:80 -s wlc\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -g -w 1\n"},
		{"values at their options", "-A -t192.0.2.10:80 -srr -p60\n-a -t 192.0.2.10:80 -r 10.0.0.1:81 -mw7\n",
			"-A -t 192.0.2.10:80 -s rr -p 60\n-a -t 192.0.2.10:80 -r 10.0.0.1:81 -m -w 7\n"},
		{"assigned values", "-A --tcp-service=192.0.2.10:80 --scheduler=sh --sched-flags=sh-port\n", "-A -t 192.0.2.10:80 -s sh -b sh-port\n"},
		{"the default persistence", "-A -t 192.0.2.10:0 -s rr -p\n", "-A -t 192.0.2.10:0 -s rr -p 360\n"},
		{"a port for direct routing is the service's", "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1:8080 -g\n",
			"-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -g -w 1\n"},
		{"an edit replaces everything", "-A -t 192.0.2.10:80 -s rr -p 9\n-E -t 192.0.2.10:80\n-a -t 192.0.2.10:80 -r 10.0.0.1 -m -w 5\n-e -t 192.0.2.10:80 -r 10.0.0.1\n",
			"-A -t 192.0.2.10:80 -s wlc\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -g -w 1\n"},
		{"thresholds are not saved", "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1 -x 9 -y 3\n",
			"-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -g -w 1\n"},
		{"what was deleted is gone", "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1\n-d -t 192.0.2.10:80 -r 10.0.0.1\n-A -u 192.0.2.10:53\n-D -u 192.0.2.10:53\n",
			"-A -t 192.0.2.10:80 -s rr\n"},
		{"short addresses, as inet_aton reads them", "-A -t 192.0.2.10:80 -s rr -p 9 -M 24\n-a -t 192.0.2.10:80 -r 10.2 -m\n-a -t 192.0.2.10:80 -r 240.0.0.1 -m\n",
			"-A -t 192.0.2.10:80 -s rr -p 9 -M 0.0.0.24\n-a -t 192.0.2.10:80 -r 240.0.0.1:80 -m -w 1\n-a -t 192.0.2.10:80 -r 10.0.0.2:80 -m -w 1\n"},
		{"a third flag that ipvsadm does not tell of", "-A -t 192.0.2.10:80 -s sh -b sh-port,flag-3\n", "-A -t 192.0.2.10:80 -s sh -b sh-port\n"},
		{"all is cleared", "-A -t 192.0.2.10:80 -s rr\n-C\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := restore(t, tt.rules)
			var b bytes.Buffer
			if err := table.WriteRules(&b); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("saved\n%swant\n%s", b.String(), tt.want)
			}
		})
	}
}

// savedRules has all that a line can have, in the order of a listing.
const savedRules = `-A -t 192.0.2.10:80 -s rr
-a -t 192.0.2.10:80 -r 10.0.0.1:80 -g -w 1
-A -t 192.0.2.10:443 -s wrr -p 360
-a -t 192.0.2.10:443 -r 10.0.0.2:8443 -m -w 100
-A -t 192.0.2.11:8080 -s sh -p 600 -M 255.255.255.0 -b sh-fallback
-a -t 192.0.2.11:8080 -r 10.0.1.4:8080 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
-a -t 192.0.2.11:8080 -r 10.0.1.5:8080 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-A -u 192.0.2.10:53 -s mh -o -b mh-fallback,mh-port
-a -u 192.0.2.10:53 -r 10.0.0.3:53 -i -w 5 --tun-type ipip
-A -u 192.0.2.13:5060 -s rr -p 300 --pe sip -o
-A --sctp-service 192.0.2.12:3868 -s lc
-a --sctp-service 192.0.2.12:3868 -r 10.0.0.9:3868 -m -w 1
-A -t [2001:db8::10]:443 -s wlc -p 300 -M 64
-a -t [2001:db8::10]:443 -r 10.0.0.1:443 -i -w 2 --tun-type ipip
-a -t [2001:db8::10]:443 -r [2001:db8:1::1]:443 -i -w 2 --tun-type gre --tun-csum
-A -f 7 -s rr -p 300
-a -f 7 -r 10.0.0.1:0 -g -w 1
-A -f 8 -6 -s wrr
`

func restore(t *testing.T, rules string) *compat.Table {
	t.Helper()
	table := new(compat.Table)
	for line := range strings.Lines(rules) {
		if err := do(table, line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return table
}

func do(table *compat.Table, line string) error {
	c, err := compat.Parse(compat.Split(line))
	if err != nil {
		return err
	}
	return table.Do(c)
}

func TestErrors(t *testing.T) {
	const there = "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1 -m\n"
	tests := []struct {
		line   string
		status int
		text   string
	}{
		{"", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."},
		{"-t 192.0.2.10:80", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."},
		{"-q", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."},
		{"--stop-daemon master", 255, "No daemon is running"},
		{"-A -q", 255, "-q: unknown option"},
		{"-A --quick", 255, "--quick: unknown option"},
		{"-A -t", 255, "-t: missing argument"},
		{"-A -t 192.0.2.10:81 -A", 2, "invalid option `-A'"},
		{"-A -t 192.0.2.10:81 what", 2, "unexpected argument what"},
		{"-A", 2, "You need to supply the 'service-address' option for the 'add-service' command"},
		{"-a -t 192.0.2.10:80", 2, "You need to supply the 'real-server' option for the 'add-server' command"},
		{"-D -t 192.0.2.10:80 -s rr", 2, "Illegal 'scheduler' option with the 'delete-service' command"},
		{"-A -t 192.0.2.10:81 -u 192.0.2.10:81", 2, "multiple 'service-address' options specified"},
		{"-L --timeout --daemon", 2, "The option 'daemon' conflicts with the 'timeout' option in the 'list' command"},
		{"-L -c --stats", 2, "options conflicts in the list command"},
		{"-A -t here", 2, "illegal virtual server address[:port] specified"},
		{"-A -t 192.0.2.10:99999", 2, "illegal virtual server address[:port] specified"},
		{"-A -t [2001:db8::1", 2, "illegal virtual server address[:port] specified"},
		{"-A -t 192.0.2.10", 2, "Zero port specified for non-persistent service"},
		{"-A -t 192.0.2.10:81 -o", 2, "One-Packet Scheduling is only for UDP virtual services"},
		{"-A -t 192.0.2.10:81 -p 0", 2, "invalid timeout value `0' specified"},
		{"-A -t 192.0.2.10:81 -p 1 -M mask", 2, "illegal virtual server persistent mask specified"},
		{"-A -t [2001:db8::1]:81 -p 1 -M 129", 2, "illegal ipv6 netmask specified"},
		{"-A -t 192.0.2.10:81 -s sh -b mh-port", 2, "incompatible scheduler flag `mh-port'"},
		{"-A -t 192.0.2.10:81 -s sh -b port", 2, "invalid scheduler flag `port'"},
		{"-A -f 0", 2, "invalid fwmark value `0' specified"},
		{"-A -6 -f 1", 2, "-6 used before -f\n"},
		{"-A -t 192.0.2.10:80 -s rr", 255, "Service already exists"},
		{"-A -t 192.0.2.10:81 -s fair", 255, "Scheduler or persistence engine not found"},
		{"-A -t 192.0.2.10:81 -p --pe dns", 255, "Scheduler or persistence engine not found"},
		{"-E -t 192.0.2.10:81", 255, "No such service"},
		{"-D -t 192.0.2.10:81", 255, "No such service"},
		{"-Z -t 192.0.2.10:81", 255, "No such service"},
		{"-Ln -t 192.0.2.10:81", 1, "No such service"},
		{"-a -t 192.0.2.10:81 -r 10.0.0.1", 255, "Service not defined"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.1 -m", 255, "Destination already exists"},
		{"-e -t 192.0.2.10:80 -r 10.0.0.2", 255, "No such destination"},
		{"-d -t 192.0.2.10:80 -r 10.0.0.2", 255, "No such destination"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -x 1 -y 2", 255, "Numerical result out of range"},
		{"-a -t 192.0.2.10:80 -r 224.0.0.1", 255, "Invalid operation.  Possibly wrong module version, address not unicast, ..."},
		{"-a -t 192.0.2.10:80 -r 10", 2, "illegal real server address[:port] specified"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -w x", 2, "illegal weight specified"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -x -1", 2, "illegal u_threshold specified"},
		{"-a -t 192.0.2.10:80 -r [2001:db8::1]:80 -m", 2, "Different address family is allowed only for tunneling servers"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -m --tun-type gre", 2, "Tunnel options conflict with forward method"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -i --tun-type vxlan", 2, "illegal tunnel type specified"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -i --tun-type gue", 2, "You need to supply the 'tun-port' option for the 'gue' tunnel type"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -i --tun-type gre --tun-remcsum", 2, "Illegal 'tun-remcsum' option with the 'gre' tunnel type"},
		{"-a -t 192.0.2.10:80 -r 10.0.0.2 -i --tun-type gre --tun-csum --tun-nocsum", 2, "The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gre' tunnel type"},
		{"--set 1 2", 2, "--set option requires 3 timeout values"},
		{"--set 1 2 x", 2, "invalid timeout value `x' specified"},
		{"--start-daemon boss", 2, "illegal start-daemon parameter specified"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			err := do(restore(t, there), tt.line)
			e := new(compat.Error)
			if !errors.As(err, &e) {
				t.Fatalf("error %v", err)
			}
			if e.Status != tt.status || e.Text != tt.text {
				t.Errorf("status %d: %s\nwant   %d: %s", e.Status, e.Text, tt.status, tt.text)
			}
		})
	}
}

// TestLists prints a table in every way. The texts are ipvsadm's own, of its
// manual's examples and of recordings.
func TestLists(t *testing.T) {
	table := restore(t, `-A -t 192.0.2.10:80 -s wlc -p 300 -M 255.255.255.0
-a -t 192.0.2.10:80 -r 10.2.0.11:8080 -m -w 5 -x 100 -y 50
-a -t 192.0.2.10:80 -r 10.2.0.12:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum
-A -f 7 -s mh -b mh-port,mh-fallback
`)
	count := func(_ *compat.Service, rs *compat.Server) compat.Counts {
		if rs == nil || rs.Weight == 5 {
			return compat.Counts{Active: 3, Inactive: 9, Persistent: 2, Connections: 12, InPackets: 345, InBytes: 123_456_789, InPacketRate: 7, InByteRate: 1_000_000_000}
		}
		return compat.Counts{}
	}
	tests := []struct{ args, want string }{
		{"-Ln", `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 wlc persistent 300 mask 255.255.255.0
  -> 10.2.0.11:8080               Masq    5      3          9         
  -> 10.2.0.12:80                 Tunnel  1      0          0         
FWM  7 mh (mh-fallback,mh-port)
`},
		{"-Ln --thresholds", `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn 
  -> RemoteAddress:Port
TCP  192.0.2.10:80 wlc persistent 300 mask 255.255.255.0
  -> 10.2.0.11:8080               100        50         3          9         
  -> 10.2.0.12:80                 0          0          0          0         
FWM  7 mh (mh-fallback,mh-port)
`},
		{"-Ln --persistent-conn", `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn 
  -> RemoteAddress:Port
TCP  192.0.2.10:80 wlc persistent 300 mask 255.255.255.0
  -> 10.2.0.11:8080               5         2           3          9         
  -> 10.2.0.12:80                 1         0           0          0         
FWM  7 mh (mh-fallback,mh-port)
`},
		{"-Ln --tun-info", `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
TCP  192.0.2.10:80 wlc persistent 300 mask 255.255.255.0
  -> 10.2.0.11:8080               Masq    n/a           5      3          9         
  -> 10.2.0.12:80                 Tunnel  gue:6080:+c   1      0          0         
FWM  7 mh (mh-fallback,mh-port)
`},
		{"-Ln --stats", `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  192.0.2.10:80                      12      345        0  123456K        0
  -> 10.2.0.11:8080                     12      345        0  123456K        0
  -> 10.2.0.12:80                        0        0        0        0        0
FWM  7                                  12      345        0  123456K        0
`},
		{"-Ln --stats --exact", `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  192.0.2.10:80                      12      345        0 123456789        0
  -> 10.2.0.11:8080                     12      345        0 123456789        0
  -> 10.2.0.12:80                        0        0        0        0        0
FWM  7                                  12      345        0 123456789        0
`},
		{"-Ln --rate", `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  192.0.2.10:80                       0        7        0    1000M        0
  -> 10.2.0.11:8080                      0        7        0    1000M        0
  -> 10.2.0.12:80                        0        0        0        0        0
FWM  7                                   0        7        0    1000M        0
`},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			c, err := compat.Parse(compat.Split(tt.args))
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := table.WriteList(&b, c.List, count); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("printed\n%swant\n%s", b.String(), tt.want)
			}
		})
	}
}

// FuzzRules holds that no rules make the parser panic, that every complaint is
// one of ipvsadm's, and that what comes of them can be saved and restored.
func FuzzRules(f *testing.F) {
	f.Add(savedRules)
	f.Add("--set 900 120 300\n-Ln --stats --exact\n-A -t [::1]:1 -pM64")
	f.Fuzz(func(t *testing.T, rules string) {
		var table, again compat.Table
		for line := range strings.Lines(rules) {
			err := do(&table, line)
			if e := new(compat.Error); err != nil && (!errors.As(err, &e) || e.Status == 0) {
				t.Errorf("%q: error %v is none of ipvsadm's", line, err)
			}
		}
		var saved, twice bytes.Buffer
		if err := table.WriteRules(&saved); err != nil {
			t.Fatal(err)
		}
		for rule := range strings.Lines(saved.String()) {
			if err := do(&again, rule); err != nil {
				t.Fatalf("%q was saved as %q: %v", rules, rule, err)
			}
		}
		if err := again.WriteRules(&twice); err != nil {
			t.Fatal(err)
		}
		if saved.String() != twice.String() {
			t.Errorf("saved as\n%sthen as\n%s", saved.String(), twice.String())
		}
	})
}
