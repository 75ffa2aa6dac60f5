package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if which := os.Getenv(childVariable); which != "" {
		child(which)
	}
	os.Exit(m.Run())
}

// The floors run as processes of their own and give a report with their figures.
func TestFloors(t *testing.T) {
	b := &bench{options: options{rounds: 1, step: 100 * time.Millisecond}, dir: t.TempDir()}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := b.measure(t.Context(), []scenario{&floors{}, &hubAlone{}}); err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{"tcp", "echo/1", "echo/64", "commit/1", "commit/16", "commit/64", "hub/8"} {
		if got := b.results.median(series, rate); got <= 0 {
			t.Errorf("%s: %v a second", series, got)
		}
		if got := b.results.median(series, p99); got < b.results.median(series, p50) {
			t.Errorf("%s: p99 is below p50", series)
		}
	}
	if text := b.report(); !strings.Contains(text, "group commit") || strings.Contains(text, "%!") {
		t.Errorf("report:\n%s", text)
	}
}

// hubAlone is the fan-out scenario without the product.
type hubAlone struct{ fanout }

func (s *hubAlone) prepare(_ context.Context, b *bench) (err error) {
	s.frame = `{"text":"` + numbered(0) + `"}`
	s.hub, err = startFloor(b, "hub")
	return err
}

func (s *hubAlone) round(ctx context.Context, b *bench) error {
	got, err := s.overHub(ctx, b, 8)
	b.results.add("hub/8", got)
	return err
}

func TestMedianAndQuantile(t *testing.T) {
	t.Parallel()
	if got := median([]float64{5, 1, 3}); got != 3 {
		t.Errorf("median of three = %v", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of four = %v", got)
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	if a, b := quantile(hundred, 0.5), quantile(hundred, 0.99); a != 50 || b != 99 {
		t.Errorf("p50 = %d, p99 = %d", a, b)
	}
}
