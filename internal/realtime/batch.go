package realtime

import (
	"encoding/binary"
	"sort"
	"strconv"
	"sync"
)

// protocol is how a listener's bytes look.
type protocol int

const (
	sse protocol = iota
	ws
	protocols
)

func (p protocol) String() string { return [...]string{"sse", "websocket"}[p] }

// batch is a run of signals of one topic in order, shared by all listeners and
// encoded at most once per protocol.
type batch struct {
	signals []Signal
	upTo    int64 // the run is everything up to here
	encoded [protocols]encoded
}

type encoded struct {
	once sync.Once
	text []byte
	ends []int // ends[i] is where frame i ends in text
}

// maxBatch bounds how much is coalesced into one write, far below a listener's
// queue: one batch must not be what fills it.
const maxBatch = 64 << 10

// weight is about what a signal takes in a queue.
func weight(s Signal) int { return len(s.Data) + 64 }

func (b *batch) weight() (n int) {
	for _, s := range b.signals {
		n += weight(s)
	}
	return n
}

// span is the part of b above after and not above until.
func (b *batch) span(after, until int64) (from, to int) {
	to = len(b.signals)
	if to == 0 {
		return 0, 0
	}
	if b.signals[0].Pos <= after {
		from = sort.Search(to, func(i int) bool { return b.signals[i].Pos > after })
	}
	if b.signals[to-1].Pos > until {
		to = sort.Search(to, func(i int) bool { return b.signals[i].Pos > until })
	}
	return from, max(from, to)
}

// frames are the bytes of the signals from (including) to (excluding).
func (b *batch) frames(p protocol, from, to int) []byte {
	if from >= to {
		return nil
	}
	e := &b.encoded[p]
	e.once.Do(func() {
		e.text = make([]byte, 0, b.weight())
		e.ends = make([]int, len(b.signals))
		for i, s := range b.signals {
			e.text = appendFrame(e.text, p, s)
			e.ends[i] = len(e.text)
		}
	})
	start := 0
	if from > 0 {
		start = e.ends[from-1]
	}
	return e.text[start:e.ends[to-1]:e.ends[to-1]]
}

func appendFrame(dst []byte, p protocol, s Signal) []byte {
	switch {
	case len(s.Data) == 0:
		return dst
	case p == ws:
		return appendText(dst, s.Data)
	default:
		return appendEvent(dst, s)
	}
}

func appendEvent(dst []byte, s Signal) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendInt(dst, s.Pos, 10)
	dst = append(dst, "\nevent: message\ndata: "...)
	at := len(dst)
	dst = append(dst, s.Data...)
	// Between JSON tokens a line break means as much as a space; on the wire it
	// would end the field and begin another.
	for i := at; i < len(dst); i++ {
		if dst[i] == '\n' || dst[i] == '\r' {
			dst[i] = ' '
		}
	}
	return append(dst, "\n\n"...)
}

// appendText appends a whole text message: final frame, no mask.
func appendText(dst, data []byte) []byte {
	const finalText = 0x81
	switch n := len(data); {
	case n < 126:
		dst = append(dst, finalText, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, finalText, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, finalText, 127), uint64(n))
	}
	return append(dst, data...)
}

// pings feed the watchdogs of clients, which only count messages. They carry no
// id: a client that resumes must not lose its position to one. The WebSocket
// form adds a ping of the protocol itself, whose pong proves the peer alive.
var pings = [protocols][]byte{
	sse: []byte("event: message\ndata: ping\n\n"),
	ws:  append(appendText(nil, []byte("ping")), 0x89, 0),
}
