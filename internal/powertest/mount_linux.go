package powertest

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Disk is one from which the power can be taken.
type Disk struct {
	Dir string // where it is mounted

	t     *testing.T
	disk  *disk
	mount *mount
}

// New makes an empty disk and mounts it until the test ends. Dice decide by the
// seed what a cut leaves.
func New(t *testing.T, seed uint64) *Disk {
	t.Helper()
	dir, err := os.MkdirTemp("", "parley-disk-")
	if err != nil {
		t.Fatal(err)
	}
	d := &Disk{Dir: dir, t: t, disk: newDisk(seed)}
	t.Cleanup(func() {
		d.unmount()
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	d.On()
	return d
}

// Load puts a directory of this machine on the disk, below Dir and with its
// owners, as if it had always been there.
func (d *Disk) Load(name, from string) error {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	err := d.disk.load(d.disk.root, name, from)
	d.disk.settle(func(int) bool { return true })
	return err
}

// Lie makes the disk one that says it has synced and has not, which a test of a
// test needs.
func (d *Disk) Lie() {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	d.disk.lies = true
}

// Journal makes the disk one on which the sync of a file puts its name there, too,
// as on ext4, XFS and btrfs.
func (d *Disk) Journal() {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	d.disk.journals = true
}

// Cut takes the power away: whatever is still asked of the disk fails with EIO.
// Programs that use it are to be killed before it is on again.
func (d *Disk) Cut() {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	d.mount.off = true
	d.disk.cut()
}

// On mounts what the disk has kept. It waits until nobody has a file of before open.
func (d *Disk) On() {
	d.t.Helper()
	d.unmount()
	m, err := mountAt(d.Dir, d.disk)
	if err != nil {
		d.t.Fatalf("the power is taken from a file system of the test's own, and it cannot be mounted: %v\n"+
			"As root this needs /dev/fuse (modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN), otherwise also fusermount3 (apt-get install fuse3)", err)
	}
	d.mount = m
}

func (d *Disk) unmount() {
	if d.mount != nil {
		d.mount.close()
		d.mount = nil
	}
}

// mount is what the kernel asks, from one time the power is there to the next.
type mount struct {
	fuse.RawFileSystem
	disk *disk
	off  bool
	held map[uint64]*holding  // nodes that the kernel knows, by number
	open map[uint64][]listing // directories that are being read
	last uint64               // key of open

	serving sync.WaitGroup
	watcher *exec.Cmd
	alive   io.Closer // the watcher unmounts when this closes
}

type holding struct {
	node  *node
	times uint64
}

type listing struct {
	name string
	node *node
}

// watch unmounts when its input ends, which is when the test is done or dead.
const watch = `read -r line; umount -l "$1" 2>/dev/null || fusermount3 -u -z "$1"`

func mountAt(dir string, d *disk) (m *mount, err error) {
	m = &mount{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d, open: map[uint64][]listing{}}
	m.held = map[uint64]*holding{fuse.FUSE_ROOT_ID: {d.root, 1}}
	m.watcher = exec.Command("/bin/sh", "-c", watch, "sh", dir)
	if m.alive, err = m.watcher.StdinPipe(); err != nil {
		return nil, err
	}
	if err := m.watcher.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	root := os.Geteuid() == 0
	server, err := fuse.NewServer(m, dir, &fuse.MountOptions{
		FsName: "powertest", Name: "powertest", Options: []string{"default_permissions"},
		AllowOther: root, DirectMount: root, // PostgreSQL does not run as root
		// The kernel need not look twice: nothing changes behind its back.
		ExplicitDataCacheControl: true, DisableReadDirPlus: true, DisableXAttrs: true,
	})
	if err != nil {
		return nil, err
	}
	closeOnExec()
	m.serving.Go(server.Serve)
	if err := server.WaitMount(); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, probe))
	if err != nil {
		return nil, err
	}
	return m, f.Close()
}

// probe is a file that is on no disk, and is opened and closed once. By that the
// kernel learns that it need not tell when files are: so it asks for less, and a
// test that is killed with a file open does not wait for itself to close it.
const probe = ".powertest-probe"

// closeOnExec keeps programs from holding what the disk is served through, which
// must end with this one.
func closeOnExec() {
	files, _ := filepath.Glob("/proc/self/fd/*") // the pattern is well formed
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && to == "/dev/fuse" {
			fd, _ := strconv.Atoi(filepath.Base(file))
			syscall.CloseOnExec(fd)
		}
	}
}

func (m *mount) close() {
	_ = m.alive.Close()  // it does not block
	_ = m.watcher.Wait() // if it fails, this waits
	m.serving.Wait()
}

// with runs fn on a node that the kernel names, while nobody else changes anything.
func (m *mount) with(id uint64, fn func(n *node) error) fuse.Status {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.off {
		return fuse.EIO
	}
	return fuse.ToStatus(fn(m.held[id].node))
}

const forever = 365 * 24 * time.Hour

// tell gives the kernel a node, which it holds until it forgets it.
func (m *mount) tell(n *node, out *fuse.EntryOut) {
	id := n.number // that of the root is the first, as the kernel wants it
	if m.held[id] == nil {
		m.held[id] = &holding{node: n}
	}
	m.held[id].times++
	out.NodeId = id
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	n.attr(&out.Attr)
}

func (n *node) attr(out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: n.number, Mode: n.mode, Nlink: n.links, Owner: fuse.Owner{Uid: n.uid, Gid: n.gid},
		Size: uint64(n.now.size), Blocks: uint64(n.now.size+511) / 512, Blksize: pageSize,
	}
	out.SetTimes(&n.changed, &n.changed, &n.changed)
}

// ── what the kernel asks ────────────────────────────────────────────────────

// Forget implements fuse.RawFileSystem.
func (m *mount) Forget(id, times uint64) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if h := m.held[id]; h != nil {
		if h.times -= times; h.times == 0 {
			delete(m.held, id)
		}
	}
}

// Lookup implements fuse.RawFileSystem.
func (m *mount) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error {
		n := dir.names[name]
		if name == probe {
			n = m.disk.node(syscall.S_IFREG, 0, 0)
		}
		if n == nil {
			return syscall.ENOENT
		}
		m.tell(n, out)
		return nil
	})
}

// GetAttr implements fuse.RawFileSystem.
func (m *mount) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return m.with(in.NodeId, func(n *node) error {
		out.SetTimeout(forever)
		n.attr(&out.Attr)
		return nil
	})
}

// SetAttr implements fuse.RawFileSystem.
func (m *mount) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return m.with(in.NodeId, func(n *node) error {
		n.changed = time.Now()
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&syscall.S_IFMT | mode
		}
		if uid, ok := in.GetUID(); ok {
			n.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.gid = gid
		}
		if at, ok := in.GetMTime(); ok {
			n.changed = at
		}
		if size, ok := in.GetSize(); ok {
			n.truncate(int64(size))
		}
		out.SetTimeout(forever)
		n.attr(&out.Attr)
		return nil
	})
}

// Mkdir implements fuse.RawFileSystem.
func (m *mount) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error {
		n, err := m.disk.create(dir, name, syscall.S_IFDIR|in.Mode&0o7777, in.Uid, in.Gid)
		if err == nil {
			m.tell(n, out)
		}
		return err
	})
}

// Create implements fuse.RawFileSystem.
func (m *mount) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error {
		n, err := m.disk.create(dir, name, syscall.S_IFREG|in.Mode&0o7777, in.Uid, in.Gid)
		if err == nil {
			out.OpenFlags = fuse.FOPEN_KEEP_CACHE
			m.tell(n, &out.EntryOut)
		}
		return err
	})
}

// Link implements fuse.RawFileSystem.
func (m *mount) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error {
		n := m.held[in.Oldnodeid].node
		err := m.disk.link(n, dir, name)
		if err == nil {
			m.tell(n, out)
		}
		return err
	})
}

// Unlink implements fuse.RawFileSystem.
func (m *mount) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error { return m.disk.remove(dir, name, false) })
}

// Rmdir implements fuse.RawFileSystem.
func (m *mount) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error { return m.disk.remove(dir, name, true) })
}

// Rename implements fuse.RawFileSystem.
func (m *mount) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, as string) fuse.Status {
	if in.Flags != 0 {
		return fuse.EINVAL
	}
	return m.with(in.NodeId, func(dir *node) error {
		return m.disk.rename(dir, name, m.held[in.Newdir].node, as)
	})
}

// Flush implements fuse.RawFileSystem. See probe.
func (m *mount) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Open implements fuse.RawFileSystem. See probe.
func (m *mount) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Read implements fuse.RawFileSystem.
func (m *mount) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	var size int
	status := m.with(in.NodeId, func(n *node) error {
		size = n.now.read(buf, int64(in.Offset))
		return nil
	})
	return fuse.ReadResultData(buf[:size]), status
}

// Write implements fuse.RawFileSystem.
func (m *mount) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return uint32(len(data)), m.with(in.NodeId, func(n *node) error {
		n.changed = time.Now()
		n.write(data, int64(in.Offset), m.disk.dice)
		return nil
	})
}

// Fsync implements fuse.RawFileSystem. The kernel sends it for every way to sync a
// file, after what is mapped.
func (m *mount) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return m.with(in.NodeId, func(n *node) error {
		m.disk.syncFile(n)
		return nil
	})
}

// FsyncDir implements fuse.RawFileSystem.
func (m *mount) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return m.with(in.NodeId, func(n *node) error {
		m.disk.syncDir(n)
		return nil
	})
}

// OpenDir implements fuse.RawFileSystem.
func (m *mount) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error {
		m.last++
		out.Fh = m.last
		return nil
	})
}

// ReadDir implements fuse.RawFileSystem. It lists what was there when it began.
func (m *mount) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return m.with(in.NodeId, func(dir *node) error {
		if in.Offset == 0 {
			m.open[in.Fh] = []listing{{".", dir}, {"..", dir}}
			for _, name := range slices.Sorted(maps.Keys(dir.names)) {
				m.open[in.Fh] = append(m.open[in.Fh], listing{name, dir.names[name]})
			}
		}
		for _, l := range m.open[in.Fh][min(in.Offset, uint64(len(m.open[in.Fh]))):] {
			if !out.AddDirEntry(fuse.DirEntry{Name: l.name, Ino: l.node.number, Mode: l.node.mode}) {
				break
			}
		}
		return nil
	})
}

// ReleaseDir implements fuse.RawFileSystem.
func (m *mount) ReleaseDir(in *fuse.ReleaseIn) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	delete(m.open, in.Fh)
}

// StatFs implements fuse.RawFileSystem.
func (m *mount) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const plenty = 1 << 24
	*out = fuse.StatfsOut{Blocks: plenty, Bfree: plenty, Bavail: plenty, Files: plenty, Ffree: plenty, Bsize: pageSize, Frsize: pageSize, NameLen: 255}
	return fuse.OK
}
