package compat

import "strings"

// An option is one of ipvsadm's.
type option uint8

// The options that commands are checked for, in the order of ipvsadm's table.
const (
	optNumeric option = iota
	optConnection
	optService
	optScheduler
	optPersistent
	optNetmask
	optServer
	optForward
	optWeight
	optUpper
	optLower
	optMcast
	optTimeout
	optDaemon
	optStats
	optRate
	optThresholds
	optPersistentConn
	optNoSort
	optSyncID
	optExact
	optOnePacket
	optEngine
	optFlags
	optMcastGroup
	optMcastPort
	optMcastTTL
	optSyncMaxLen
	optTunInfo
	optTunType
	optTunPort
	optTunNoSum
	optTunSum
	optTunRemSum
	numOptions
	optNone // an option that is not checked
)

var optionNames = [numOptions]string{
	"numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server",
	"forwarding-method", "weight", "u-threshold", "l-threshold", "mcast-interface", "timeout", "daemon", "stats",
	"rate", "thresholds", "persistent-conn", "nosort", "syncid", "exact", "ops", "pe", "sched-flags",
	"mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen", "tun-info", "tun-type", "tun-port", "tun-nocsum",
	"tun-csum", "tun-remcsum",
}

// allowed says of each command and option: blank may be there, + must, x must
// not, 1 excludes the others that have 1.
var allowed = [numOps]string{
	Add:          "xx+   xxxxxxxxxxxxxxx   xxxxxxxxxx",
	Edit:         "xx+   xxxxxxxxxxxxxxx   xxxxxxxxxx",
	Delete:       "xx+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	Flush:        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	List:         " 11xxxxxxxxx11       xxxxxxx xxxxx",
	AddServer:    "xx+xxx+    xxxxxxxxxxxxxxxxxx     ",
	DeleteServer: "xx+xxx+xxxxxxxxxxxxxxxxxxxxxxxxxxx",
	EditServer:   "xx+xxx+    xxxxxxxxxxxxxxxxxx     ",
	SetTimeouts:  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	StartDaemon:  "xxxxxxxxxxx xxxxxxx xxxx    xxxxxx",
	StopDaemon:   "xxxxxxxxxxxxxxxxxxx xxxxxxxxxxxxxx",
	Restore:      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	Save:         " xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	Zero:         "xx xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
}

// check holds the options of a command against the table.
func check(op Op, set map[option]bool) error {
	last := option(numOptions)
	for o := range option(numOptions) {
		switch rule := allowed[op][o]; {
		case !set[o] && rule == '+':
			return usage("You need to supply the '%s' option for the '%s' command", optionNames[o], op)
		case set[o] && rule == 'x':
			return usage("Illegal '%s' option with the '%s' command", optionNames[o], op)
		case set[o] && rule == '1' && last != numOptions:
			return usage("The option '%s' conflicts with the '%s' option in the '%s' command", optionNames[o], optionNames[last], op)
		case set[o] && rule == '1':
			last = o
		}
	}
	return nil
}

// tunnelAllowed is allowed for the kinds of tunnels, from tun-port on.
var tunnelAllowed = map[string]string{"ipip": "xxxx", "gue": "+111", "gre": "x11x"}

func checkTunnel(kind string, set map[option]bool) error {
	last := option(numOptions)
	for i, rule := range tunnelAllowed[kind] {
		o := optTunPort + option(i)
		switch {
		case !set[o] && rule == '+':
			return usage("You need to supply the '%s' option for the '%s' tunnel type", optionNames[o], kind)
		case set[o] && rule == 'x':
			return usage("Illegal '%s' option with the '%s' tunnel type", optionNames[o], kind)
		case set[o] && rule == '1' && last != numOptions:
			return usage("The option '%s' conflicts with the '%s' option in the '%s' tunnel type", optionNames[o], optionNames[last], kind)
		case set[o] && rule == '1':
			last = o
		}
	}
	return nil
}

// An argument is one option with its value, as popt cuts the words.
type argument struct {
	name  string // the long one, without dashes
	flag  string // as it was written
	value string
	given bool // there is a value
}

// shape is whether an option takes a value.
type shape uint8

const (
	alone shape = iota
	valued
	maybeValued // the next word, unless that is an option
)

type known struct {
	name  string
	shape shape
}

// short are the options of one letter.
var short = map[byte]known{
	'A': {"add-service", alone}, 'E': {"edit-service", alone}, 'D': {"delete-service", alone}, 'C': {"clear", alone},
	'L': {"list", alone}, 'l': {"list", alone}, 'Z': {"zero", alone}, 'a': {"add-server", alone},
	'e': {"edit-server", alone}, 'd': {"delete-server", alone}, 'h': {"help", alone}, 'v': {"version", alone},
	'R': {"restore", alone}, 'S': {"save", alone}, 't': {"tcp-service", valued}, 'u': {"udp-service", valued},
	'f': {"fwmark-service", valued}, 's': {"scheduler", valued}, 'p': {"persistent", maybeValued},
	'M': {"netmask", valued}, 'r': {"real-server", valued}, 'm': {"masquerading", alone}, 'i': {"ipip", alone},
	'g': {"gatewaying", alone}, 'w': {"weight", valued}, 'x': {"u-threshold", valued}, 'y': {"l-threshold", valued},
	'n': {"numeric", alone}, 'c': {"connection", alone}, 'X': {"exact", alone}, '6': {"ipv6", alone},
	'o': {"ops", alone}, 'b': {"sched-flags", valued},
}

// long are the options by name that have no letter.
var long = map[string]shape{
	"set": alone, "start-daemon": valued, "stop-daemon": valued, "sctp-service": valued, "mcast-interface": valued,
	"syncid": valued, "sync-maxlen": valued, "mcast-group": valued, "mcast-port": valued, "mcast-ttl": valued,
	"timeout": alone, "daemon": alone, "stats": alone, "rate": alone, "thresholds": alone, "persistent-conn": alone,
	"tun-info": alone, "nosort": alone, "sort": alone, "pe": valued, "tun-type": valued, "tun-port": valued,
	"tun-nocsum": alone, "tun-csum": alone, "tun-remcsum": alone,
}

func lookUpLong(name string) (known, bool) {
	if s, ok := long[name]; ok {
		return known{name, s}, true
	}
	for _, k := range short {
		if k.name == name {
			return k, true
		}
	}
	return known{}, false
}

// words cuts the words of a line into options and what is left over.
func words(args []string) (options []argument, rest []string, err error) {
	next := func(k known, flag string) (argument, error) {
		a := argument{name: k.name, flag: flag}
		switch {
		case k.shape == alone:
			return a, nil
		case len(args) > 0 && (k.shape == valued || !strings.HasPrefix(args[0], "-")):
			a.value, a.given = args[0], true
			args = args[1:]
		case k.shape == valued:
			return a, refused(flag + ": missing argument")
		}
		return a, nil
	}
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		switch {
		case strings.HasPrefix(word, "--") && len(word) > 2:
			name, value, assigned := strings.Cut(word[2:], "=")
			k, ok := lookUpLong(name)
			if !ok {
				return options, nil, refused(word + ": unknown option")
			}
			if assigned && k.shape != alone {
				options = append(options, argument{k.name, word, value, true})
				continue
			}
			a, err := next(k, word)
			if err != nil {
				return options, nil, err
			}
			options = append(options, a)
		case strings.HasPrefix(word, "-") && len(word) > 1:
			for letters := word[1:]; letters != ""; {
				k, ok := short[letters[0]]
				flag := "-" + letters[:1]
				if !ok {
					return options, nil, refused(flag + ": unknown option")
				}
				letters = letters[1:]
				if k.shape != alone && letters != "" {
					options = append(options, argument{k.name, flag, strings.TrimPrefix(letters, "="), true})
					break
				}
				a, err := next(k, flag)
				if err != nil {
					return options, nil, err
				}
				options = append(options, a)
			}
		default:
			rest = append(rest, word)
		}
	}
	return options, rest, nil
}
