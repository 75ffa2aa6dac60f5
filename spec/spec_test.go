package spec

import (
	"strings"
	"testing"
)

func TestEveryPublishedOperationIsListed(t *testing.T) {
	t.Parallel()
	want := map[string]int{"runtime": 48, "admin": 108, "files": 15, "tables": 17, "billing": 10, "chat": 21}
	got := map[string]int{}
	for _, op := range Operations() {
		if op.Published() {
			got[op.Family]++
		}
	}
	for family, n := range want {
		if got[family] != n {
			t.Errorf("family %s has %d operations, want %d", family, got[family], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("families are %v, want those of %v", got, want)
	}
}

// What Parley adds stands apart, where no published path can ever be.
func TestOwnOperationsStandApart(t *testing.T) {
	t.Parallel()
	for _, op := range Operations() {
		if own := strings.HasPrefix(op.Path, "/v1/parley/"); own == op.Published() {
			t.Errorf("%s %s has the path %s", op.Family, op.Name, op.Path)
		}
	}
}

func TestRefusedOperationsSayWhy(t *testing.T) {
	t.Parallel()
	for _, op := range Operations() {
		if (op.State == Refused) != (op.Reason != "") {
			t.Errorf("%s %s: state %s with reason %q", op.Family, op.Name, op.State, op.Reason)
		}
	}
}

func TestMalformedLinesAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"runtime GET /a getA 200", "want family method path name status state"},
		{"runtime GET /a getA two done", `status "two" is not a number`},
		{"runtime GET /a getA 200 soon", `state "soon"`},
		{"runtime GET /a getA 200 refused:", `state "refused:"`},
		{"runtime GET /a getA 200 done today", `state "done today"`},
		{"runtime GET /a getA 200 done\nruntime GET /b getA 200 done", "operations.txt:2: runtime getA is listed twice"},
		{"runtime GET /a getA 200 done\nruntime GET /a getB 200 done", "runtime GET /a is listed twice"},
	} {
		if _, err := parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("parse(%q) = %v, want an error with %q", c.text, err, c.want)
		}
	}
}
