package powertest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// disk is the tree of files, as programs see it and as it is kept.
type disk struct {
	lies     bool // a sync does nothing
	journals bool // a sync of a file is one of its names

	mu      sync.Mutex
	dice    *rand.Rand
	root    *node
	made    uint64   // nodes so far
	pending []change // of directories, not synced, in the order they happened
}

// node is a file or a directory.
type node struct {
	number         uint64
	mode, uid, gid uint32
	changed        time.Time
	links          uint32 // names it has, as programs see it

	// Of a file: as programs see it, and as the disk has it.
	now, kept content
	dirty     map[int]struct{} // the pages in which they may differ

	// Of a directory: the same.
	names, keptNames map[string]*node
}

func (n *node) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

// change is what one call does to directories, all of it or nothing.
type change []entry

// entry is a name that stands for a node from now on, or for none.
type entry struct {
	dir  *node
	name string
	to   *node
}

// only is the name alone, whatever it stands for.
func (e entry) only() entry { return entry{dir: e.dir, name: e.name} }

func newDisk(seed uint64) *disk {
	d := &disk{dice: rand.New(rand.NewPCG(seed, 1))}
	d.root = d.node(syscall.S_IFDIR|0o755, uint32(syscall.Geteuid()), uint32(syscall.Getegid()))
	return d
}

func (d *disk) node(mode, uid, gid uint32) *node {
	d.made++
	n := &node{number: d.made, mode: mode, uid: uid, gid: gid, changed: time.Now()}
	if n.isDir() {
		n.names, n.keptNames = map[string]*node{}, map[string]*node{}
	} else {
		n.dirty = map[int]struct{}{}
	}
	return n
}

// ── names ───────────────────────────────────────────────────────────────────

// do changes directories as programs see them.
func (d *disk) do(c ...entry) {
	for _, e := range c {
		if old := e.dir.names[e.name]; old != nil {
			old.links--
		}
		if e.to != nil {
			e.to.links++
		}
		set(e.dir.names, e)
		e.dir.changed = time.Now()
	}
	d.pending = append(d.pending, c)
}

func set(names map[string]*node, e entry) {
	if e.to == nil {
		delete(names, e.name)
	} else {
		names[e.name] = e.to
	}
}

func (d *disk) create(dir *node, name string, mode, uid, gid uint32) (*node, error) {
	if dir.names[name] != nil {
		return nil, syscall.EEXIST
	}
	n := d.node(mode, uid, gid)
	d.do(entry{dir, name, n})
	return n, nil
}

func (d *disk) link(n, dir *node, name string) error {
	if dir.names[name] != nil {
		return syscall.EEXIST
	}
	d.do(entry{dir, name, n})
	return nil
}

// remove is unlink and rmdir.
func (d *disk) remove(dir *node, name string, isDir bool) error {
	n := dir.names[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case isDir && !n.isDir():
		return syscall.ENOTDIR
	case !isDir && n.isDir():
		return syscall.EISDIR
	case len(n.names) > 0:
		return syscall.ENOTEMPTY
	}
	d.do(entry{dir, name, nil})
	return nil
}

func (d *disk) rename(from *node, name string, to *node, as string) error {
	n, old := from.names[name], to.names[as]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n == old:
		return nil
	case old != nil && old.isDir() && !n.isDir():
		return syscall.EISDIR
	case old != nil && !old.isDir() && n.isDir():
		return syscall.ENOTDIR
	case old != nil && len(old.names) > 0:
		return syscall.ENOTEMPTY
	}
	d.do(entry{from, name, nil}, entry{to, as, n})
	return nil
}

// syncDir puts the names of a directory on the disk.
func (d *disk) syncDir(dir *node) {
	if !d.lies {
		d.sync(func(e entry) bool { return e.dir == dir })
	}
}

// syncFile puts a file on the disk.
func (d *disk) syncFile(n *node) {
	if d.lies {
		return
	}
	n.sync()
	if d.journals {
		d.sync(func(e entry) bool { return e.to == n })
	}
}

// sync carries the changes that are wanted over to the disk, and what happened to
// the same names before.
func (d *disk) sync(wanted func(entry) bool) {
	synced, names := map[int]bool{}, map[entry]bool{}
	for i, c := range slices.Backward(d.pending) {
		if slices.ContainsFunc(c, func(e entry) bool { return wanted(e) || names[e.only()] }) {
			synced[i] = true
			for _, e := range c {
				names[e.only()] = true
			}
		}
	}
	d.settle(func(i int) bool { return synced[i] })
}

// settle carries the pending changes that are kept, by their index, over to the
// disk, and leaves the others pending.
func (d *disk) settle(kept func(i int) bool) {
	var rest []change
	for i, c := range d.pending {
		if !kept(i) {
			rest = append(rest, c)
			continue
		}
		for _, e := range c {
			set(e.dir.keptNames, e)
		}
	}
	d.pending = rest
}

// cut takes the power away: what is left is what the disk has kept.
func (d *disk) cut() {
	lost := map[entry]bool{}
	d.settle(func(i int) bool {
		c := d.pending[i]
		if d.dice.IntN(2) == 0 && !slices.ContainsFunc(c, func(e entry) bool { return lost[e.only()] }) {
			return true
		}
		for _, e := range c {
			lost[e.only()] = true
		}
		return false
	})
	d.pending = nil
	d.lose(d.root, map[*node]bool{})
}

func (d *disk) lose(n *node, seen map[*node]bool) {
	if n.links++; seen[n] {
		return
	}
	seen[n] = true
	n.links = 1
	if !n.isDir() {
		n.lose(d.dice)
		return
	}
	n.names = maps.Clone(n.keptNames)
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		d.lose(n.names[name], seen)
	}
}

// load puts a directory of this machine into one of the disk, with its owners, as
// if it had always been there.
func (d *disk) load(dir *node, name, from string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	n, err := d.create(dir, name, uint32(stat.Mode), stat.Uid, stat.Gid)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		text, err := os.ReadFile(from)
		n.write(text, 0, d.dice)
		n.sync()
		return err
	}
	below, err := os.ReadDir(from)
	for _, e := range below {
		err = errors.Join(err, d.load(n, e.Name(), filepath.Join(from, e.Name())))
	}
	return err
}
