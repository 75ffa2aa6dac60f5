package powertest

import (
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	pageSize = 4096
	sector   = 512 // what a disk writes whole or not at all
)

type page [pageSize]byte

// zero is the page that nobody has written to.
var zero page

// content is that of a file. What lies behind its end is zero.
type content struct {
	size  int64
	pages []*page // nil where nothing was written
}

func (c *content) page(i int) *page {
	if i < len(c.pages) && c.pages[i] != nil {
		return c.pages[i]
	}
	return &zero
}

func (c *content) set(i int, p *page) {
	if i >= len(c.pages) {
		c.pages = append(c.pages, make([]*page, i+1-len(c.pages))...)
	}
	c.pages[i] = p
}

func (c *content) resize(size int64) {
	c.size = size
	last, tail := int(size/pageSize), int(size%pageSize)
	if tail == 0 {
		last--
	}
	if len(c.pages) > last+1 {
		clear(c.pages[last+1:])
		c.pages = c.pages[:last+1]
	}
	if tail > 0 && !slices.Equal(c.page(last)[tail:], zero[tail:]) {
		short := *c.page(last)
		clear(short[tail:])
		c.set(last, &short)
	}
}

func (c *content) read(buf []byte, off int64) (n int) {
	for n < len(buf) && off < c.size {
		p := c.page(int(off / pageSize))
		end := min(pageSize, c.size-off/pageSize*pageSize)
		k := copy(buf[n:], p[off%pageSize:end])
		n, off = n+k, off+int64(k)
	}
	return n
}

// write is how programs see it. The disk may get a page by itself, before the next
// write to it.
func (n *node) write(data []byte, off int64, dice *rand.Rand) {
	for len(data) > 0 {
		i := int(off / pageSize)
		old := n.now.page(i)
		if old != n.kept.page(i) && dice.IntN(8) == 0 {
			n.kept.set(i, old)
			n.kept.size = max(n.kept.size, min(n.now.size, int64(i+1)*pageSize))
		}
		if old == &zero || old == n.kept.page(i) {
			fresh := *old
			old = &fresh
			n.now.set(i, old)
			n.dirty[i] = struct{}{}
		}
		k := copy(old[off%pageSize:], data)
		data, off = data[k:], off+int64(k)
		n.now.size = max(n.now.size, off)
	}
}

// truncate is how programs see it.
func (n *node) truncate(size int64) {
	for i := int(size / pageSize); i < max(len(n.now.pages), len(n.kept.pages)); i++ {
		n.dirty[i] = struct{}{}
	}
	n.now.resize(size)
}

// sync puts the file on the disk.
func (n *node) sync() {
	for i := range n.dirty {
		n.kept.set(i, n.now.page(i))
	}
	n.kept.resize(n.now.size)
	clear(n.dirty)
}

// lose leaves of the file what the disk may have.
func (n *node) lose(dice *rand.Rand) {
	less, more := min(n.kept.size, n.now.size), max(n.kept.size, n.now.size)
	size := [...]int64{n.kept.size, n.now.size, less + dice.Int64N(more-less+1)}[dice.IntN(3)]
	for _, i := range slices.Sorted(maps.Keys(n.dirty)) {
		n.kept.set(i, either(n.kept.page(i), n.now.page(i), dice))
	}
	n.kept.resize(size)
	n.now = content{size, slices.Clone(n.kept.pages)}
	clear(n.dirty)
}

// either is one page or the other, or some sectors of each.
func either(a, b *page, dice *rand.Rand) *page {
	switch dice.IntN(3) {
	case 0:
		return a
	case 1:
		return b
	}
	torn := *a
	for at := 0; at < pageSize; at += sector {
		if dice.IntN(2) == 0 {
			copy(torn[at:at+sector], b[at:])
		}
	}
	return &torn
}
