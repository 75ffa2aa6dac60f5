package realtime

// bag is an unordered set of listeners with constant-time add and remove: each
// listener keeps its own place in every bag it is in.
type bag struct {
	seats []seat
}

type seat struct {
	l  *listener
	at *int
}

func (b *bag) add(l *listener, at *int) {
	*at = len(b.seats)
	b.seats = append(b.seats, seat{l, at})
}

func (b *bag) remove(at *int) {
	last := len(b.seats) - 1
	moved := b.seats[last]
	b.seats[*at] = moved
	*moved.at = *at
	b.seats[last] = seat{}
	b.seats = b.seats[:last]
	if cap(b.seats) > 64 && len(b.seats) < cap(b.seats)/4 {
		b.seats = append(make([]seat, 0, 2*len(b.seats)), b.seats...)
	}
}

func (b *bag) empty() bool { return len(b.seats) == 0 }

func (b *bag) list() []*listener {
	ls := make([]*listener, len(b.seats))
	for i, s := range b.seats {
		ls[i] = s.l
	}
	return ls
}
