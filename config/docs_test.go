package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestEveryKeyIsDocumented: the reference page names each key, and its example
// sets each.
func TestEveryKeyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, tables, _ := strings.Cut(rest, "\n```")
	documented := func(key string) {
		last := key[strings.LastIndexByte(key, '.')+1:]
		if !strings.Contains(tables, "`"+key+"`") {
			t.Errorf("docs/configuration.md has no row for %s", key)
		}
		if !strings.Contains(example, last+":") {
			t.Errorf("the example of docs/configuration.md does not set %s", key)
		}
	}
	for key := range settableKeys() {
		documented(key)
	}
	for _, section := range []reflect.Type{serviceType, realServerType, peerType} {
		for i := range section.NumField() {
			key := section.Field(i).Tag.Get("mapstructure")
			switch {
			case key == "tunnel" && section == serviceType, key == "timeouts", key == "policy", key == "bgp", key == "bfd", key == "persistence":
				inner := section.Field(i).Type
				for j := range inner.NumField() {
					documented(key + "." + inner.Field(j).Tag.Get("mapstructure"))
				}
			case key != "real_servers":
				documented(key)
			}
		}
	}
}

// TestEveryHealthKeyIsDocumented: the page on health has a row for each key and
// an example that sets it.
func TestEveryHealthKeyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/health.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples strings.Builder
	for i, part := range strings.Split(string(page), "```yaml\n") {
		if i > 0 {
			example, _, _ := strings.Cut(part, "```")
			examples.WriteString(example)
		}
	}
	var walk func(prefix string, section reflect.Type)
	walk = func(prefix string, section reflect.Type) {
		for i := range section.NumField() {
			f := section.Field(i)
			key := f.Tag.Get("mapstructure")
			if f.Type.Kind() == reflect.Struct {
				walk(prefix+key+".", f.Type)
				continue
			}
			if !strings.Contains(string(page), "| `"+prefix+key+"` |") {
				t.Errorf("docs/health.md has no row for %s", prefix+key)
			}
			if !strings.Contains(examples.String(), key+":") {
				t.Errorf("no example of docs/health.md sets %s", prefix+key)
			}
		}
	}
	walk("", healthType)
	for name := range checkKeys {
		if !strings.Contains(string(page), "\n| `"+name+"` |") {
			t.Errorf("docs/health.md has no row for the check %s", name)
		}
	}
}
