package realtime

import (
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
)

// lines counts log lines.
type lines struct{ n int }

func (l *lines) Write(p []byte) (int, error) { l.n++; return len(p), nil }

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestSpanAndFrames(t *testing.T) {
	t.Parallel()
	b := &batch{signals: []Signal{{3, []byte("c")}, {5, []byte("e")}, {6, nil}, {9, []byte("i")}}, upTo: 10}
	for _, c := range []struct {
		after, until int64
		want         string // the data of the frames
	}{
		{0, 100, "cei"}, {2, 100, "cei"}, {3, 100, "ei"}, {4, 100, "ei"}, {5, 100, "i"}, {9, 100, ""}, {50, 100, ""},
		{0, 9, "cei"}, {0, 8, "ce"}, {0, 4, "c"}, {0, 2, ""}, {4, 5, "e"}, {9, 3, ""}, {7, 4, ""},
	} {
		from, to := b.span(c.after, c.until)
		for p := range protocols {
			var got strings.Builder
			text := string(b.frames(p, from, to))
			for len(text) > 0 {
				switch p {
				case ws:
					got.WriteString(text[2:3])
					text = text[3:]
				default:
					frame, rest, ok := strings.Cut(text, "\n\n")
					if !ok {
						t.Fatalf("half a frame: %q", text)
					}
					got.WriteString(frame[len(frame)-1:])
					text = rest
				}
			}
			if got.String() != c.want {
				t.Errorf("%v after %d until %d: got %q, want %q", p, c.after, c.until, got.String(), c.want)
			}
		}
	}
	empty := &batch{upTo: 7}
	if from, to := empty.span(0, 100); from != 0 || to != 0 || empty.frames(sse, from, to) != nil {
		t.Error("an empty batch has frames")
	}
}

func TestBagKeepsPlaces(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	var b bag
	in := map[*listener]bool{}
	for range 10_000 {
		if random.IntN(5) < 3 && len(in) < 500 || len(in) == 0 {
			l := &listener{}
			b.add(l, &l.inAll)
			in[l] = true
		} else {
			for l := range in {
				b.remove(&l.inAll)
				delete(in, l)
				break
			}
		}
		if random.IntN(100) > 0 {
			continue
		}
		if len(b.list()) != len(in) || b.empty() != (len(in) == 0) {
			t.Fatalf("%d listed, %d in it", len(b.list()), len(in))
		}
		for i, s := range b.seats {
			if !in[s.l] || s.l.inAll != i {
				t.Fatalf("seat %d: listener thinks it sits at %d", i, s.l.inAll)
			}
		}
	}
	for l := range in {
		b.remove(&l.inAll)
	}
	if !b.empty() || cap(b.seats) > 64 {
		t.Errorf("%d left, room for %d kept", len(b.seats), cap(b.seats))
	}
}

func TestChunksFollowTheSizeOfSignals(t *testing.T) {
	t.Parallel()
	c := chunk{}
	small, large := &batch{signals: []Signal{{1, nil}}}, &batch{signals: []Signal{{1, make([]byte, heavyChunk)}}}
	for range 10 {
		c.was(small)
		c.next()
		c.was(small)
	}
	if c.next() != largestChunk {
		t.Errorf("small signals are read %d at a time", c.next())
	}
	for range 20 {
		c.was(large)
	}
	if c.next() != 1 {
		t.Errorf("large signals are read %d at a time", c.next())
	}
}
