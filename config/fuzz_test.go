package config

import "testing"

// FuzzParse: no file panics, and what is accepted is whole: each listen reads
// back as it was written.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full), uint8(0))
	f.Add([]byte(fullTOML), uint8(1))
	f.Add([]byte(fullJSON), uint8(2))
	f.Add([]byte("services: [null, {real_servers: [null], listen: [null]}]"), uint8(0))
	f.Add([]byte("bgp: {as: 1}\n? [a]\n: b\n1: 2"), uint8(0))
	f.Add([]byte("\"a\x1fb\": 1\n"), uint8(0))
	formats := []string{"yaml", "toml", "json"}
	f.Fuzz(func(t *testing.T, raw []byte, format uint8) {
		cfg, err := Parse(raw, formats[int(format)%len(formats)], Options{})
		if (cfg == nil) != (err != nil) {
			t.Fatalf("Config %v beside error %v", cfg, err)
		}
		if err != nil {
			return
		}
		for _, s := range cfg.Services {
			if s.Name == "" || len(s.Listen) == 0 {
				t.Errorf("accepted a service without name or listen: %+v", s)
			}
			for _, l := range s.Listen {
				if again, err := ParseListen(l.String()); err != nil || again != l {
					t.Errorf("%v reads back as %v, %v", l, again, err)
				}
			}
			for _, rs := range s.RealServers {
				if !rs.Address.IsValid() || rs.Mode == "" {
					t.Errorf("accepted a real server without address or mode: %+v", rs)
				}
			}
		}
	})
}
