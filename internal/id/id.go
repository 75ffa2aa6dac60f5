// Package id makes and recognises identifiers: a prefix, an underscore and a
// 26-character ULID whose time part is the creation time, so that ordering by
// id agrees with ordering by creation.
package id

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"sync"
	"time"
)

const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// New makes an identifier minted now.
func New(prefix string) string { return At(prefix, time.Now().UnixMilli()) }

// At makes an identifier whose time part is ms, in milliseconds since the epoch.
// Of two with the same prefix and time that one process makes in a row, the
// later is the greater: lists show what was made in one millisecond in order.
func At(prefix string, ms int64) string {
	hi, lo := after(prefix, ms)
	return build(prefix, ms, hi, lo)
}

// Oldest is the least identifier whose time part is ms.
func Oldest(prefix string, ms int64) string { return build(prefix, ms, 0, 0) }

// minted is the last identifier of a prefix: its time and its two random halves
// of 40 bits.
type minted struct {
	mu     sync.Mutex
	ms     int64
	hi, lo uint64
}

var last sync.Map // prefix → *minted

const half = 1<<40 - 1

// after is the random part of the next identifier: fresh in a new millisecond,
// else an unguessable step above the one before.
func after(prefix string, ms int64) (hi, lo uint64) {
	v, ok := last.Load(prefix)
	if !ok {
		v, _ = last.LoadOrStore(prefix, new(minted))
	}
	var r [16]byte
	rand.Read(r[:])
	hi, lo = binary.BigEndian.Uint64(r[:8])&half, binary.BigEndian.Uint64(r[8:])&half
	m := v.(*minted)
	m.mu.Lock()
	defer m.mu.Unlock()
	if ms != m.ms {
		m.ms, m.hi, m.lo = ms, hi>>1, lo // half of the room stays above it
		return m.hi, m.lo
	}
	m.lo += lo
	m.hi += hi>>22 + m.lo>>40
	m.lo &= half
	m.hi &= half
	return m.hi, m.lo
}

func build(prefix string, ms int64, hi, lo uint64) string {
	b := make([]byte, len(prefix)+27)
	copy(b, prefix)
	b[len(prefix)] = '_'
	s := b[len(prefix)+1:]
	for i := 9; i >= 0; i-- {
		s[i] = alphabet[ms&31]
		ms >>= 5
	}
	for i := 7; i >= 0; i-- {
		s[10+i], s[18+i] = alphabet[hi&31], alphabet[lo&31]
		hi >>= 5
		lo >>= 5
	}
	return string(b)
}

// Valid reports whether s has the form of an identifier: a prefixed ULID or a UUID.
func Valid(s string) bool {
	if i := strings.IndexByte(s, '_'); i > 0 {
		return prefixed(s, i)
	}
	return isUUID(s)
}

// Minted reports whether s has the form of an identifier of the given prefix.
func Minted(prefix, s string) bool {
	return len(s) == len(prefix)+27 && strings.HasPrefix(s, prefix) && prefixed(s, len(prefix))
}

func prefixed(s string, i int) bool {
	if len(s)-i != 27 || s[i] != '_' {
		return false
	}
	for _, c := range []byte(s[:i]) {
		if c < 'a' || c > 'z' {
			return false
		}
	}
	for _, c := range []byte(s[i+1:]) {
		if strings.IndexByte(alphabet, c) < 0 {
			return false
		}
	}
	return true
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// UUID makes a random version 4 UUID, the form of webhook ids.
func UUID() string {
	var r [16]byte
	rand.Read(r[:])
	r[6], r[8] = r[6]&0x0f|0x40, r[8]&0x3f|0x80
	var b [36]byte
	hex.Encode(b[:8], r[:4])
	hex.Encode(b[9:13], r[4:6])
	hex.Encode(b[14:18], r[6:8])
	hex.Encode(b[19:23], r[8:10])
	hex.Encode(b[24:], r[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}
