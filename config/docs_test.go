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
			case key == "tunnel" && section == serviceType, key == "health", key == "timeouts", key == "policy":
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
