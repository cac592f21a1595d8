package lb

import (
	"strings"
	"testing"
)

func TestSIPCallID(t *testing.T) {
	const invite = "INVITE sip:a@example.net SIP/2.0\r\n"
	long := strings.Repeat("a", maxCallID)
	tests := []struct {
		name string
		msg  string
		want string // "": none
	}{
		{"among other headers", invite + "Via: SIP/2.0/UDP 198.51.100.7\r\nCall-ID: a84b4c76e66710@pc33.example.com\r\nCSeq: 1 INVITE\r\n\r\n", "a84b4c76e66710@pc33.example.com"},
		{"in a response", "SIP/2.0 200 OK\r\nCall-ID: x@y\r\n\r\n", "x@y"},
		{"whatever the letters' case", invite + "cAlL-iD: x@y\r\n", "x@y"},
		{"by the compact name", invite + "i: x@y\r\n", "x@y"},
		{"by the compact name in a capital", invite + "I:x\r\n", "x"},
		{"without a host", invite + "Call-ID: 843817637684230\r\n", "843817637684230"},
		{"all that a word may have", invite + "Call-ID: aZ09-.!%*_+`'~()<>:\\\"/[]?{}@[2001:db8::1]\r\n", "aZ09-.!%*_+`'~()<>:\\\"/[]?{}@[2001:db8::1]"},
		{"blanks around the colon", invite + "Call-ID \t:\t x@y\r\n", "x@y"},
		{"without blanks", invite + "Call-ID:x@y\r\n", "x@y"},
		{"lines that end by LF", "INVITE\nCall-ID: x@y\n\n", "x@y"},
		{"lines that end by CR", "INVITE\rCall-ID: x@y\r\r", "x@y"},
		{"a value on the next line", invite + "Call-ID:\r\n x@y\r\n", "x@y"},
		{"a colon on the next line", invite + "Call-ID\r\n : x@y\r\n", "x@y"},
		{"the first of two", invite + "Call-ID: x@y\r\nCall-ID: z\r\n", "x@y"},
		{"the first that has a value", invite + "Call-ID: @y\r\nCall-ID: z\r\n", "z"},
		{"even behind the headers, as in IPVS", invite + "\r\nCall-ID: x@y\r\n", "x@y"},
		{"of 255 bytes", invite + "Call-ID: " + long + "\r\n", long},

		{"nothing", "", ""},
		{"no SIP", "hello", ""},
		{"no such header", invite + "Via: x\r\n\r\n", ""},
		{"the name in the first line", "Call-ID: x@y\r\n", ""},
		{"the name in another header", invite + "Via: Call-ID: x@y\r\n", ""},
		{"the name on a continuation line", invite + "Via: a\r\n Call-ID: x@y\r\n", ""},
		{"another name that begins with i", invite + "Info: x@y\r\n", ""},
		{"another name that begins with Call-ID", invite + "Call-ID-Extra: x@y\r\n", ""},
		{"no colon", invite + "Call-ID x@y\r\n", ""},
		{"no value", invite + "Call-ID:\r\nVia: x\r\n", ""},
		{"no value and no more", invite + "Call-ID:", ""},
		{"only the compact name", invite + "i", ""},
		{"no host behind the @", invite + "Call-ID: x@\r\n", ""},
		{"cut off", invite + "Call-ID: x@y", ""},
		{"something behind it", invite + "Call-ID: x@y z\r\n", ""},
		{"of 256 bytes", invite + "Call-ID: " + long + "a\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := sipCallID([]byte(tt.msg)); string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// FuzzSIPCallID: whatever a datagram holds, a Call-ID is a part of it that a
// line's end follows, of words that one @ at most divides, and it is the same
// however the message goes on.
func FuzzSIPCallID(f *testing.F) {
	for _, s := range []string{
		"INVITE sip:a SIP/2.0\r\nCall-ID: x@y\r\n\r\n", "SIP/2.0 200 OK\ni:\n x\n", "\r\nCall-ID\r\n : @\r\ni: z\r",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		id := sipCallID(msg)
		if id == nil {
			return
		}
		n := len(id)
		if n == 0 || n > maxCallID || strings.ContainsAny(string(id), "\r\n \t") {
			t.Fatalf("%q is no Call-ID", id)
		}
		name, host, divided := strings.Cut(string(id), "@")
		if wordLen([]byte(name)) != len(name) || wordLen([]byte(host)) != len(host) || name == "" || divided && host == "" {
			t.Fatalf("%q is no Call-ID", id)
		}
		if end := id[:n+1][n]; end != '\r' && end != '\n' {
			t.Fatalf("%q ends by %q", id, end)
		}
		if again := sipCallID(append(msg[:len(msg):len(msg)], "Call-ID: other\r\n"...)); string(again) != string(id) {
			t.Fatalf("%q became %q", id, again)
		}
	})
}
