package auth

import (
	"strings"
	"testing"
)

func TestNewToken(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, kind := range []string{PAT, BAK, IAK} {
		text, hash := NewToken(kind)
		if !strings.HasPrefix(text, "bp_"+kind+"_") || len(text) != len("bp_pat_")+43 || !wellFormed(text) {
			t.Errorf("token %q has not the documented form", text)
		}
		if hash != HashToken(text) || len(hash) != 64 || strings.Contains(hash, text) {
			t.Errorf("hash %q", hash)
		}
		if seen[text] {
			t.Error("a token came twice")
		}
		seen[text] = true
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	good, _ := NewToken(PAT)
	for _, c := range []struct {
		name   string
		values []string
		ok     bool
	}{
		{"plain", []string{"Bearer " + good}, true},
		{"lower case", []string{"bearer " + good}, true},
		{"odd case", []string{"bEARER " + good}, true},
		{"more spaces", []string{"  Bearer   " + good + " "}, true},
		{"none", nil, false},
		{"empty", []string{""}, false},
		{"twice", []string{"Bearer " + good, "Bearer " + good}, false},
		{"no scheme", []string{good}, false},
		{"other scheme", []string{"Token " + good}, false},
		{"glued", []string{"Bearer" + good}, false},
		{"two tokens", []string{"Bearer " + good + " " + good}, false},
		{"comma", []string{"Bearer " + good + ", Bearer " + good}, false},
		{"short", []string{"Bearer " + good[:len(good)-1]}, false},
		{"long", []string{"Bearer " + good + "A"}, false},
		{"unknown kind", []string{"Bearer bp_xyz_" + strings.Repeat("A", 43)}, false},
		{"upper-case brand", []string{"Bearer BP_pat_" + strings.Repeat("A", 43)}, false},
		{"padding", []string{"Bearer bp_pat_" + strings.Repeat("A", 42) + "="}, false},
		{"NUL", []string{"Bearer bp_pat_" + strings.Repeat("A", 42) + "\x00"}, false},
	} {
		text, ok := bearer(c.values)
		if ok != c.ok || ok && text != good {
			t.Errorf("%s: got %q, %v; want ok %v", c.name, text, ok, c.ok)
		}
	}
}

// Whatever stands in the header, only a text of the documented form comes through, and it stands in the header.
func FuzzBearer(f *testing.F) {
	good, _ := NewToken(BAK)
	for _, s := range []string{"Bearer " + good, "bearer  " + good + "\t", "Basic x", "", " ", "Bearer \xff", "Bearer bp_pat_"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		text, ok := bearer([]string{header})
		if !ok {
			return
		}
		if !wellFormed(text) || len(text) != 50 || !strings.Contains(header, text) {
			t.Fatalf("%q gave %q", header, text)
		}
	})
}
