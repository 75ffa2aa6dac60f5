package powertest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"parley/internal/durable"
	"parley/internal/powertest"
)

const files = 40

func text(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, 100+1000*i) }

func file(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("f%02d", i)) }

// lost counts the files that are not whole after the power went.
func lost(t *testing.T, d *powertest.Disk, way string) (n int) {
	t.Helper()
	run(t, "TestWhatIsNotSyncedIsLost", d.Dir+" "+way)
	d.Cut()
	d.On()
	for i := range files {
		got, err := os.ReadFile(file(d.Dir, i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if !bytes.Equal(got, text(i)) {
			n++
		}
	}
	return n
}

// task tells a test that is run as a program of its own what to do.
const task = "PARLEY_POWERTEST_TASK"

// run does so: memory that is mapped from a file here cannot be touched by the
// process that serves the file.
func run(t *testing.T, test, todo string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), task+"="+todo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// asTold is that program: it writes files in one of the ways.
func asTold(t *testing.T, dir, name string) {
	for _, way := range ways {
		for i := range files {
			if way.name == name {
				way.write(t, file(dir, i), text(i))
			}
		}
	}
}

// with opens a file to write to it, with more flags.
func with(t *testing.T, file string, flags int, fn func(f *os.File) error) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fn(f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// Each way of writing, and whether it is one on which a program may rely.
var ways = []struct {
	name  string
	safe  bool
	write func(t *testing.T, file string, text []byte)
}{
	{"no sync", false, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error { _, err := f.Write(text); return err })
		syncDir(t, filepath.Dir(file))
	}},
	{"only sync_file_range", false, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error {
			_, err := f.Write(text)
			const flags = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
			return errors.Join(err, unix.SyncFileRange(int(f.Fd()), 0, 0, flags))
		})
		syncDir(t, filepath.Dir(file))
	}},
	{"no sync of the directory", false, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error { _, err := f.Write(text); return errors.Join(err, f.Sync()) })
	}},
	{"writes after the sync", false, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error {
			_, first := f.Write(text[:50])
			synced := f.Sync()
			_, err := f.Write(text[50:])
			return errors.Join(first, synced, err)
		})
		syncDir(t, filepath.Dir(file))
	}},
	{"mapped, no sync", false, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error { return mapped(f, text, false) })
		syncDir(t, filepath.Dir(file))
	}},
	{"fsync", true, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error { _, err := f.Write(text); return errors.Join(err, f.Sync()) })
		syncDir(t, filepath.Dir(file))
	}},
	{"fdatasync", true, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error {
			_, err := f.Write(text)
			return errors.Join(err, syscall.Fdatasync(int(f.Fd())))
		})
		syncDir(t, filepath.Dir(file))
	}},
	{"O_SYNC", true, func(t *testing.T, file string, text []byte) {
		with(t, file, os.O_SYNC, func(f *os.File) error { _, err := f.Write(text); return err })
		syncDir(t, filepath.Dir(file))
	}},
	{"O_DSYNC", true, func(t *testing.T, file string, text []byte) {
		with(t, file, syscall.O_DSYNC, func(f *os.File) error { _, err := f.Write(text); return err })
		syncDir(t, filepath.Dir(file))
	}},
	{"msync", true, func(t *testing.T, file string, text []byte) {
		with(t, file, 0, func(f *os.File) error { return mapped(f, text, true) })
		syncDir(t, filepath.Dir(file))
	}},
	{"durable.Create", true, func(t *testing.T, file string, text []byte) {
		if err := durable.Create(file, text); err != nil {
			t.Fatal(err)
		}
	}},
	{"durable.Replace", true, func(t *testing.T, file string, text []byte) {
		if err := errors.Join(durable.Create(file, nil), durable.Replace(file, text)); err != nil {
			t.Fatal(err)
		}
	}},
	{"renamed", true, func(t *testing.T, file string, text []byte) {
		with(t, file+".tmp", 0, func(f *os.File) error { _, err := f.Write(text); return errors.Join(err, f.Sync()) })
		if err := os.Rename(file+".tmp", file); err != nil {
			t.Fatal(err)
		}
		syncDir(t, filepath.Dir(file))
	}},
}

// mapped writes through memory.
func mapped(f *os.File, text []byte, sync bool) error {
	if err := f.Truncate(int64(len(text))); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, len(text), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m, text)
	if sync {
		err = unix.Msync(m, unix.MS_SYNC)
	}
	return errors.Join(err, unix.Munmap(m))
}

// TestWhatIsNotSyncedIsLost holds that the disk bites, and that it does not bite
// those who sync.
func TestWhatIsNotSyncedIsLost(t *testing.T) {
	if dir, way, told := strings.Cut(os.Getenv(task), " "); told {
		asTold(t, dir, way)
		return
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			n := lost(t, powertest.New(t, 1), way.name)
			if way.safe && n > 0 {
				t.Errorf("%d of %d files were synced and are lost", n, files)
			}
			if !way.safe && n < files/4 {
				t.Errorf("%d of %d files are lost: such a disk shows nothing", n, files)
			}
		})
	}
}

func TestADiskThatLies(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			d := powertest.New(t, 2)
			d.Lie()
			if n := lost(t, d, way.name); n < files/4 {
				t.Errorf("%d of %d files are lost by a disk that lies", n, files)
			}
		})
	}
}

// TestJournal holds that names come with their files where that is asked for, and
// that nothing else does.
func TestJournal(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			d := powertest.New(t, 10)
			d.Journal()
			safe := way.safe || way.name == "no sync of the directory"
			if n := lost(t, d, way.name); safe != (n == 0) {
				t.Errorf("%d of %d files are lost", n, files)
			}
		})
	}
}

// TestDirectories holds that a directory is lost with all that is in it, unless
// it was made to stay.
func TestDirectories(t *testing.T) {
	for name, mkdirAll := range map[string]func(string, fs.FileMode) error{"os.MkdirAll": os.MkdirAll, "durable.MkdirAll": durable.MkdirAll} {
		d := powertest.New(t, 9)
		below := func(i int) string { return filepath.Join(file(d.Dir, i), "a", "b") }
		for i := range files {
			if err := mkdirAll(below(i), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := durable.Create(file(below(i), i), text(i)); err != nil {
				t.Fatal(err)
			}
		}
		d.Cut()
		d.On()
		there := 0
		for i := range files {
			if got, err := os.ReadFile(file(below(i), i)); err == nil && bytes.Equal(got, text(i)) {
				there++
			}
		}
		if safe := name == "durable.MkdirAll"; safe != (there == files) {
			t.Errorf("%s: %d of %d are there", name, there, files)
		}
	}
}

// TestARenameIsWhole replaces files without syncing the directory: each is the old
// or the new one, whole.
func TestARenameIsWhole(t *testing.T) {
	d := powertest.New(t, 3)
	name := func(i int) string { return file(d.Dir, i) }
	put := func(file, text string) {
		with(t, file, 0, func(f *os.File) error { _, err := f.WriteString(text); return errors.Join(err, f.Sync()) })
	}
	for i := range files {
		put(name(i), "old")
	}
	syncDir(t, d.Dir)
	for i := range files {
		put(name(i)+".tmp", "new")
		if err := os.Rename(name(i)+".tmp", name(i)); err != nil {
			t.Fatal(err)
		}
	}
	d.Cut()
	d.On()
	found := map[string]int{}
	for i := range files {
		text, err := os.ReadFile(name(i))
		if err != nil {
			t.Fatal(err)
		}
		found[string(text)]++
	}
	if found["old"] == 0 || found["new"] == 0 || found["old"]+found["new"] != files {
		t.Errorf("after renames that were not synced: %v", found)
	}
}

// TestAfterTheCut holds that programs get nothing done any more, and that one that
// is still there does not reach what is mounted next.
func TestAfterTheCut(t *testing.T) {
	d := powertest.New(t, 4)
	file := file(d.Dir, 0)
	with(t, file, 0, func(f *os.File) error { _, err := f.WriteString("kept"); return errors.Join(err, f.Sync()) })
	syncDir(t, d.Dir)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	d.Cut()
	_, wrote := f.WriteString("lost")
	for what, err := range map[string]error{"write": wrote, "fsync": f.Sync(), "create": os.WriteFile(file+"2", nil, 0o600), "remove": os.Remove(file)} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s without power: %v", what, err)
		}
	}
	_ = f.Close() // it cannot say anything new
	d.On()
	if got, err := os.ReadFile(file); string(got) != "kept" || err != nil {
		t.Errorf("the file says %q, %v", got, err)
	}
}

// TestFileSystem does the same at random on the disk and on one of this machine.
func TestFileSystem(t *testing.T) {
	d, plain := powertest.New(t, 5), t.TempDir()
	dice := rand.New(rand.NewPCG(6, 7))
	for n := range 3000 {
		name := func() string { return []string{"", "d1/", "d2/"}[dice.IntN(3)] + string(rune('a'+dice.IntN(6))) }
		a, b, size, off := name(), name(), dice.IntN(20_000), dice.Int64N(20_000)
		text := bytes.Repeat([]byte{byte(n)}, size)
		what := dice.IntN(9)
		do := func(dir string) error {
			a, b := filepath.Join(dir, a), filepath.Join(dir, b)
			switch what {
			case 0:
				return os.Mkdir(filepath.Join(dir, []string{"d1", "d2"}[n%2]), 0o700)
			case 1:
				return os.Rename(a, b)
			case 2:
				return os.Link(a, b)
			case 3:
				return syscall.Unlink(a)
			case 4:
				return syscall.Rmdir(filepath.Join(dir, []string{"d1", "d2"}[n%2]))
			case 5:
				return os.Truncate(a, off)
			}
			f, err := os.OpenFile(a, os.O_RDWR|os.O_CREATE|[]int{0, os.O_TRUNC, os.O_APPEND, os.O_SYNC}[n%4], 0o640)
			if err != nil {
				return err
			}
			if n%4 == 2 {
				_, err = f.Write(text)
			} else {
				_, err = f.WriteAt(text, off)
			}
			return errors.Join(err, f.Close())
		}
		got, want := do(d.Dir), do(plain)
		if errno(got) != errno(want) {
			t.Fatalf("step %d, %d on %s and %s: %v, want %v", n, what, a, b, got, want)
		}
		if n%100 == 0 {
			compare(t, d.Dir, plain)
		}
	}
	compare(t, d.Dir, plain)
}

func errno(err error) (e syscall.Errno) {
	errors.As(err, &e)
	return e
}

// compare holds two trees to be the same, also for programs that were just started.
func compare(t *testing.T, got, want string) {
	t.Helper()
	a, b := tree(t, got), tree(t, want)
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if a[name] != b[name] {
			t.Fatalf("%s is %.60q, want %.60q", name, a[name], b[name])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("there are %d names, want %d", len(a), len(b))
	}
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		said := info.Mode().String()
		if !e.IsDir() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			said += fmt.Sprintf(" %d links, %d bytes, %s", info.Sys().(*syscall.Stat_t).Nlink, info.Size(), text)
		}
		found[path[len(dir):]] = said
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSharedMemory holds that those who map one file see each other's writes, as
// the connections of SQLite do.
func TestSharedMemory(t *testing.T) {
	dir := os.Getenv(task)
	if dir == "" {
		run(t, "TestSharedMemory", powertest.New(t, 8).Dir)
		return
	}
	const size, at = 32768, 4096 - 6
	with(t, filepath.Join(dir, "shm"), 0, func(f *os.File) error {
		if err := f.Truncate(size); err != nil {
			return err
		}
		m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(m[at:], "across two pages")
		other, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		got := make([]byte, 16)
		_, read := other.ReadAt(got, at)
		_, wrote := other.WriteAt([]byte("among"), at)
		if string(got) != "across two pages" || string(m[at:at+16]) != "amongs two pages" {
			t.Errorf("the other reads %q, the one that maps %q", got, m[at:at+16])
		}
		return errors.Join(read, wrote, other.Close(), unix.Munmap(m))
	})
}

// TestKilledTest holds that nothing stays mounted when a test is killed.
func TestKilledTest(t *testing.T) {
	if os.Getenv(task) != "" {
		d := powertest.New(t, 1)
		f, err := os.Create(filepath.Join(d.Dir, "open"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(d.Dir)
		<-t.Context().Done()
		_ = f.Close() // never: it was killed
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledTest$")
	cmd.Env = append(os.Environ(), task+"=wait")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	if _, err := fmt.Fscanln(out, &dir); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	unmounted(t, dir)
}

// unmounted waits for the directory to be an ordinary one, and removes it.
func unmounted(t *testing.T, dir string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		err := os.Remove(dir) // refused while something is mounted
		if err == nil {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}
