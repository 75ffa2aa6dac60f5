package id

import (
	"strings"
	"testing"
)

func TestOrderOfIDsIsOrderOfTime(t *testing.T) {
	last := ""
	for _, ms := range []int64{0, 1, 31, 32, 1 << 20, 1763640000000, 1763640000001, 1<<48 - 1} {
		got := At("msg", ms)
		if got <= last {
			t.Errorf("id at %d is %q, not after %q", ms, got, last)
		}
		last = got
	}
}

func TestValid(t *testing.T) {
	for s, want := range map[string]bool{
		New("conv"):                             true,
		New("wrkflow"):                          true,
		UUID():                                  true,
		"808f9876-b826-4ab8-859f-6d9cc4978cd2":  true,
		"":                                      false,
		"_":                                     false,
		"conv_":                                 false,
		"your_conversation_id":                  false,
		"conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M":        false, // one short
		"conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M00":      false, // one long
		"conv_01jd3zk8b9q2w5t7y4x6v8n1m0":       false, // lower case
		"conv_01JD3ZK8B9Q2W5T7Y4X6V8N1MU":       false, // U is not in the alphabet
		"808f9876-b826-4ab8-859f-6d9cc4978cd":   false,
		"808f9876xb826-4ab8-859f-6d9cc4978cd2":  false,
		"Conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0":       false,
		"a/../_01JD3ZK8B9Q2W5T7Y4X6V8N1M0":      false,
		strings.Repeat("a", 1<<16) + "_" + "01": false,
	} {
		if got := Valid(s); got != want {
			t.Errorf("Valid(%.50q) = %v, want %v", s, got, want)
		}
	}
	if !Minted("user", New("user")) || Minted("user", New("users")) || Minted("user", UUID()) {
		t.Error("Minted tells prefixes apart wrongly")
	}
}

func TestIDsAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for range 10000 {
		for _, s := range []string{At("a", 1), UUID()} {
			if seen[s] {
				t.Fatalf("%q came twice", s)
			}
			seen[s] = true
		}
	}
}

func TestIDsOfOneMillisecondAreInOrder(t *testing.T) {
	t.Parallel()
	before := ""
	for range 100000 {
		got := At("order", 1763640000000)
		if got <= before {
			t.Fatalf("%q does not come after %q", got, before)
		}
		before = got
		At("other", 5) // another prefix does not disturb it
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New("msg")
	}
}
