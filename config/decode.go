package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// decode fills the Config from v's tree and notes every key and value that
// does not fit.
func (fs *faults) decode(v *viper.Viper) {
	err := v.Unmarshal(fs.cfg, viper.DecodeHook(mapstructure.DecodeHookFuncValue(convert)), func(dc *mapstructure.DecoderConfig) {
		dc.WeaklyTypedInput = false
	})
	fs.addDecodeErrors(err)

	unknown := append(unusedKeys(v), emptyKeys(v)...)
	slices.Sort(unknown)
	for _, path := range slices.Compact(unknown) {
		path = strings.ReplaceAll(path, delimiter, ".")
		fs.add(path, "unknown key")
	}
}

// unusedKeys lists the keys that no field of a Config has. mapstructure tells
// them only for a section without another fault, so values that do not fit
// are passed over here.
func unusedKeys(v *viper.Viper) []string {
	anyValue := func(from, to reflect.Value) (any, error) {
		out, err := convert(from, to)
		if err != nil {
			return reflect.Zero(to.Type()).Interface(), nil
		}
		return out, nil
	}
	var meta mapstructure.Metadata
	// What does not fit even so is reported by decode.
	_ = v.Unmarshal(&Config{}, viper.DecodeHook(mapstructure.DecodeHookFuncValue(anyValue)), func(dc *mapstructure.DecoderConfig) {
		dc.WeaklyTypedInput = true
		dc.Metadata = &meta
	})
	return meta.Unused
}

// A keyError is a fault of one key of the section that was to be decoded.
type keyError struct {
	key string
	error
}

// addDecodeErrors flattens the tree of errors that mapstructure makes.
func (fs *faults) addDecodeErrors(err error) {
	switch e := err.(type) {
	case nil:
	case *mapstructure.DecodeError:
		path, fault := e.Name(), e.Unwrap()
		var k keyError
		if errors.As(fault, &k) {
			path, fault = path+"."+k.key, k.error
		}
		fs.add(path, "%v", fault)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			fs.addDecodeErrors(one)
		}
	case interface{ Unwrap() error }:
		fs.addDecodeErrors(e.Unwrap())
	default:
		fs.add("", "%v", err)
	}
}

// emptyKeys lists the keys without a value that no section has: viper leaves
// them out of what it decodes, so a misspelt empty section would go unseen.
func emptyKeys(v *viper.Viper) []string {
	known := map[string]bool{}
	for key := range settableKeys() {
		for {
			known[key] = true
			dot := strings.LastIndexByte(key, '.')
			if dot < 0 {
				break
			}
			key = key[:dot]
		}
	}
	known["services"] = true
	var unknown []string
	for _, key := range v.AllKeys() {
		path := strings.ReplaceAll(key, delimiter, ".")
		if v.Get(key) == nil && !known[path] {
			unknown = append(unknown, path)
		}
	}
	return unknown
}

var (
	addrType        = reflect.TypeFor[netip.Addr]()
	addrPortType    = reflect.TypeFor[netip.AddrPort]()
	durationType    = reflect.TypeFor[time.Duration]()
	expectType      = reflect.TypeFor[Expect]()
	healthType      = reflect.TypeFor[Health]()
	listenType      = reflect.TypeFor[Listen]()
	mssType         = reflect.TypeFor[MSS]()
	peerType        = reflect.TypeFor[Peer]()
	persistenceType = reflect.TypeFor[Persistence]()
	prefixType      = reflect.TypeFor[netip.Prefix]()
	queuesType      = reflect.TypeFor[Queues]()
	restartType     = reflect.TypeFor[Restart]()
	realServerType  = reflect.TypeFor[RealServer]()
	timeoutsType    = reflect.TypeFor[Timeouts]()
	serviceType     = reflect.TypeFor[Service]()
)

// convert is called for every value of the tree, from outside inwards, before
// mapstructure stores it in to. It parses what has a form and refuses what
// mapstructure would bend: numbers as text, fractions, numbers that do not
// fit, durations without a unit.
func convert(from, to reflect.Value) (any, error) {
	if from.Kind() == reflect.Interface {
		from = from.Elem()
	}
	t := to.Type()
	if parse := parsers[t]; parse != nil {
		if from.Kind() != reflect.String {
			return nil, fmt.Errorf("must be a text in quotes, is %v", describe(from))
		}
		return parse(from.String())
	}
	switch t {
	case durationType:
		if from.Kind() != reflect.String {
			return nil, fmt.Errorf("must be a duration with its unit, such as 30s, is %v", describe(from))
		}
		d, err := time.ParseDuration(from.String())
		if err != nil {
			return nil, fmt.Errorf("%q is not a duration such as 30s, 1m30s or 500ms", from.String())
		}
		return d, nil
	case restartType:
		if from.Kind() == reflect.String && from.String() == "off" {
			return time.Duration(0), nil
		}
		d, err := convert(from, reflect.ValueOf(time.Duration(0)))
		if err != nil {
			return nil, fmt.Errorf(`must be "off" or a duration with its unit, such as 120s, is %v`, describe(from))
		}
		return d, nil
	case expectType:
		if n, err := wholeNumber(from); err == nil {
			return strconv.Itoa(n), nil
		}
	case mssType:
		if from.Kind() == reflect.String && from.String() == "auto" {
			return int(AutoMSS), nil
		}
		n, err := wholeNumber(from)
		if err != nil || n < 0 {
			return nil, fmt.Errorf(`must be "auto" or a number of bytes, is %v`, describe(from))
		}
		return n, nil
	case queuesType:
		if from.Kind() == reflect.String && from.String() == "auto" {
			return 0, nil
		}
		n, err := wholeNumber(from)
		if err != nil || n < 1 {
			return nil, fmt.Errorf(`must be "auto" or a number of queues, is %v`, describe(from))
		}
		return n, nil
	}
	switch t.Kind() {
	case reflect.Int:
		return wholeNumber(from)
	case reflect.Bool:
		if from.Kind() != reflect.Bool {
			return nil, fmt.Errorf("must be true or false, is %v", describe(from))
		}
	case reflect.String:
		if from.Kind() != reflect.String {
			return nil, fmt.Errorf("must be a text, is %v", describe(from))
		}
	case reflect.Slice:
		if from.Kind() != reflect.Slice {
			return nil, fmt.Errorf("must be a list, is %v", describe(from))
		}
	case reflect.Struct:
		return section(from, t)
	}
	return from.Interface(), nil
}

// parsers are the types that are written as one text.
var parsers = map[reflect.Type]func(string) (any, error){
	addrType: func(s string) (any, error) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not an IP address", s)
		}
		return a, nil
	},
	addrPortType: func(s string) (any, error) {
		if s == "" {
			return netip.AddrPort{}, nil
		}
		return parseServer(s)
	},
	listenType: func(s string) (any, error) { return ParseListen(s) },
	prefixType: func(s string) (any, error) {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			return netip.PrefixFrom(a, a.BitLen()), nil
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 198.51.100.0/29", s)
		}
		return p, nil
	},
}

// section checks that a value is one and fills in the defaults of those that
// stand in lists.
func section(from reflect.Value, t reflect.Type) (any, error) {
	if from.Kind() != reflect.Map {
		return nil, fmt.Errorf("must be a section with keys, is %v", describe(from))
	}
	tree, ok := from.Interface().(map[string]any)
	if !ok {
		return nil, errors.New("has a key that is not a text")
	}
	if t == timeoutsType {
		if err := noZeroTimeout(tree); err != nil {
			return nil, err
		}
	}
	defaults := listDefaults[t]
	if defaults == nil {
		return tree, nil
	}
	tree = maps.Clone(tree)
	for key, value := range defaults {
		if tree[key] == nil {
			tree[key] = value
		}
	}
	return tree, nil
}

// noZeroTimeout refuses a timeout of 0, which would count as one that is not
// set.
func noZeroTimeout(tree map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		text, _ := tree[key].(string)
		if d, err := time.ParseDuration(text); err == nil && d == 0 {
			return keyError{key, fmt.Errorf("%v is out of range, %v to %v", d, minTimeout, maxTimeout)}
		}
	}
	return nil
}

// listDefaults are the defaults of sections in lists, where Default cannot
// put them. A real server takes its mode and tunnel from its service.
var listDefaults = map[reflect.Type]map[string]any{
	serviceType: {
		"scheduler":    "wlc",
		"on_no_server": string(AnswerICMP),
		"announce":     true,
		"quorum":       1,
	},
	realServerType: {"weight": 1},
	peerType: {
		"port":          179,
		"hold_time":     "9s",
		"connect_retry": "5s",
	},
	healthType:      healthDefaults,
	persistenceType: persistenceDefaults,
}

// wholeNumber accepts the forms that the three formats give a number: int
// (YAML), int64 (TOML), float64 (JSON).
func wholeNumber(v reflect.Value) (int, error) {
	switch {
	case v.CanInt():
		return int(v.Int()), nil
	case v.CanUint() && v.Uint() <= math.MaxInt:
		return int(v.Uint()), nil
	case v.CanFloat() && v.Float() == math.Trunc(v.Float()) && math.Abs(v.Float()) < 1<<53:
		return int(v.Float()), nil
	}
	return 0, fmt.Errorf("must be a whole number, is %v", describe(v))
}

// describe shows a value of the tree in a message.
func describe(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return fmt.Sprintf("the text %q", v.String())
	case reflect.Map:
		return "a section"
	case reflect.Slice:
		return "a list"
	case reflect.Invalid:
		return "nothing"
	}
	return fmt.Sprint(v.Interface())
}
