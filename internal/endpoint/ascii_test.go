package endpoint

import (
	"bytes"
	stdjson "encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestASCII(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		``:                          ``,
		`{"a":"b"}`:                 `{"a":"b"}`,
		`"é"`:                       `"\u00e9"`,
		`"漢字"`:                      `"\u6f22\u5b57"`,
		`"𝄞"`:                       `"\ud834\udd1e"`,
		`"🇨🇭"`:                      `"\ud83c\udde8\ud83c\udded"`,
		"\"\u2028\u2029\u0085\"":    `"\u2028\u2029\u0085"`,
		"\"\xff\xfe\"":              `"\ufffd\ufffd"`,
		"\"a\xe6\xbcb\"":            `"a\ufffd\ufffdb"`,
		"\"\xed\xa0\x80\"":          `"\ufffd\ufffd\ufffd"`,
		`"\u00e9\\é"`:               `"\u00e9\\\u00e9"`,
		`{"é":{"ü":["ö",1]}}`:       `{"\u00e9":{"\u00fc":["\u00f6",1]}}`,
		"\"\x7f\"":                  "\"\x7f\"",
		`"0123456é89012345678901é"`: `"0123456\u00e989012345678901\u00e9"`,
	} {
		if got := string(ASCII([]byte(in))); got != want {
			t.Errorf("ASCII(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestASCIIDoesNotCopyASCII(t *testing.T) { // not parallel: allocations are counted
	in := []byte(strings.Repeat("x", 1000))
	if out := ASCII(in); &out[0] != &in[0] {
		t.Error("an ASCII text was copied")
	}
	if n := testing.AllocsPerRun(100, func() { ASCII(in) }); n != 0 {
		t.Errorf("an ASCII text costs %v allocations", n)
	}
}

func FuzzASCII(f *testing.F) {
	for _, s := range []string{`{"a":"é漢𝄞"}`, "\"\xff\"", `"\ud834"`, `"\ud834\udd1e"`, `"é\"é\\"`, "[\"\xf0\x9d\x84\"]", `{"é":1,"e\u0301":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		out := ASCII(in)
		if !bytes.Equal(in, before) {
			t.Fatalf("ASCII changed its input %q", before)
		}
		for _, b := range out {
			if b >= 0x80 {
				t.Fatalf("ASCII(%q) = %q", in, out)
			}
		}
		if again := ASCII(out); !bytes.Equal(again, out) {
			t.Fatalf("ASCII(%q) is not stable", in)
		}
		var a, b any
		if stdjson.Unmarshal(in, &a) != nil {
			return
		}
		if err := stdjson.Unmarshal(out, &b); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%q means %v, %q means %v (%v)", in, a, out, b, err)
		}
	})
}

func FuzzAppendQuoted(f *testing.F) {
	for _, s := range []string{"", "a", "\"\\/", "\x00\n\x1f\x7f", "é漢𝄞", "\xff a \xf0\x9d", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := appendQuoted([]byte("x"), in)[1:]
		var back string
		if err := stdjson.Unmarshal(out, &back); err != nil || back != strings.ToValidUTF8(in, "\ufffd") && !strings.Contains(back, "\ufffd") {
			t.Fatalf("%q became %s, which means %q (%v)", in, out, back, err)
		}
		if asciiPrefix(out) != len(out) {
			t.Fatalf("%q became %q", in, out)
		}
	})
}

func BenchmarkASCII(b *testing.B) {
	plain := []byte(strings.Repeat(`{"text":"hello, how are you?"},`, 33))
	mixed := []byte(strings.Repeat(`{"text":"hällo, wie geht es?"},`, 33))
	for name, in := range map[string][]byte{"plain": plain, "mixed": mixed} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				ASCII(in)
			}
		})
	}
}
