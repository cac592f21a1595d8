package config

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/viper"
)

// settableKeys lists the keys that can be set from outside the file, with the
// type of each: all but those inside lists of sections.
func settableKeys() map[string]reflect.Type {
	keys := map[string]reflect.Type{}
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			name := prefix + f.Tag.Get("mapstructure")
			switch {
			case f.Type.Kind() == reflect.Struct && f.Type.PkgPath() == t.PkgPath():
				walk(name+".", f.Type)
			case f.Type.Kind() == reflect.Slice && f.Type.Elem().PkgPath() == t.PkgPath():
			default:
				keys[name] = f.Type
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	return keys
}

// environment applies the variables UVS_SECTION_KEY.
func (fs *faults) environment(v *viper.Viper, keys map[string]reflect.Type, lookup func(string) (string, bool)) {
	if lookup == nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		name := "UVS_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		if value, ok := lookup(name); ok {
			fs.override(v, key, keys[key], value, "environment variable "+name)
		}
	}
}

// set applies key=value assignments, the last of a key winning.
func (fs *faults) set(v *viper.Viper, keys map[string]reflect.Type, assignments []string) {
	for _, a := range assignments {
		key, value, ok := strings.Cut(a, "=")
		if !ok {
			fs.add("--set "+a, "must be key=value")
			continue
		}
		t, known := keys[key]
		if !known {
			fs.add("--set "+key, "cannot be set; known are %s", strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
			continue
		}
		fs.override(v, key, t, value, "--set "+key)
	}
}

// override gives value, a text, the form that the key's type has in a file.
func (fs *faults) override(v *viper.Viper, key string, t reflect.Type, value, source string) {
	var tree any = value
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice:
		list := []any{}
		for e := range strings.SplitSeq(value, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
		tree = list
	case (t == queuesType || t == mssType) && value == "auto", t == durationType:
	case t.Kind() == reflect.Bool:
		if value != "true" && value != "false" {
			fs.add(source, "%q is neither true nor false", value)
			return
		}
		tree = value == "true"
	case t.Kind() == reflect.Int:
		n, err := strconv.Atoi(value)
		if err != nil {
			fs.add(source, "%q is not a whole number", value)
			return
		}
		tree = n
	}
	v.Set(strings.ReplaceAll(key, ".", delimiter), tree)
}
