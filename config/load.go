package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/viper"
)

// Options are what a file cannot say. The zero value reads the file alone and
// takes any scheduler's name.
type Options struct {
	// Schedulers are the names that exist. None: names are not checked.
	Schedulers []string

	// SchedulerFlags are the names of the flags that a scheduler takes. Nil:
	// flags are not checked.
	SchedulerFlags func(scheduler string) []string

	// MaglevFaults says what is wrong with a section maglev, by its keys. Nil:
	// it is not checked.
	MaglevFaults func(Maglev) map[string]string

	// Set replaces keys outside lists, each written key=value with the
	// sections of the key joined by points: limits.flows=1000. Lists are
	// separated by commas.
	Set []string

	// LookupEnv finds environment variables: UVS_LIMITS_FLOWS is
	// limits.flows. Nil: the environment is not read. Set wins over it.
	LookupEnv func(string) (string, bool)
}

// Load reads the file at path; its extension says the format.
func Load(path string, o Options) (*Config, error) {
	format, err := formatOf(path)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return Parse(raw, format, o)
}

func formatOf(path string) (string, error) {
	switch ext := filepath.Ext(path); ext {
	case ".yaml", ".yml":
		return "yaml", nil
	case ".toml", ".json":
		return ext[1:], nil
	default:
		return "", fmt.Errorf("configuration file %s: the name must end in .yaml, .yml, .toml or .json", path)
	}
}

// delimiter joins the names of nested sections inside viper. No key that a
// person writes contains it, so a key with a point in it stays one unknown
// key and is not taken for a section.
const delimiter = "\x1f"

// Parse reads raw in a format: yaml, toml or json. A broken file gives the
// parser's error; a file that can be read gives every [Fault] in it.
func Parse(raw []byte, format string, o Options) (*Config, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, errors.New("the configuration is empty (a file caught while it is being written?)")
	}
	if format == "yaml" && documents(raw) > 1 {
		return nil, errors.New("the configuration holds more than one YAML document; only one is read")
	}
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	v.SetConfigType(format)
	if err := v.ReadConfig(bytes.NewReader(raw)); err != nil {
		return nil, fmt.Errorf("%s: %w", format, err)
	}

	cfg := Default()
	fs := &faults{cfg: &cfg}
	keys := settableKeys()
	fs.environment(v, keys, o.LookupEnv)
	fs.set(v, keys, o.Set)
	fs.decode(v)
	fs.inherit()
	fs.check(o)
	if err := fs.err(); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// documents counts the YAML documents of raw: viper would silently read the
// first and leave out the rest.
func documents(raw []byte) int {
	n, content := 1, false
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "---" || strings.HasPrefix(line, "--- "):
			if content {
				n++
			}
			content = true
		case line != "" && line[0] != '#' && line[0] != '%':
			content = true
		}
	}
	return n
}
