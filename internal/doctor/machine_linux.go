package doctor

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fileSystems are those whose name says more than that they are local.
var fileSystems = map[int64]disk{
	0x6969:     {kind: "NFS", network: true},
	0x517b:     {kind: "SMB", network: true},
	0xff534d42: {kind: "CIFS", network: true},
	0xfe534d42: {kind: "SMB", network: true},
	0x01021997: {kind: "9P", network: true},
	0x5346414f: {kind: "AFS", network: true},
	0x6b414653: {kind: "AFS", network: true},
	0x73757245: {kind: "Coda", network: true},
	0x564c:     {kind: "NCP", network: true},
	0x00c36400: {kind: "CephFS", network: true},
	0x0bd00bd0: {kind: "Lustre", network: true},
	0x01161970: {kind: "GFS2", network: true},
	0x7461636f: {kind: "OCFS2", network: true},
	0x65735546: {kind: "FUSE"},
	0x794c7630: {kind: "overlayfs"},
	0x01021994: {kind: "tmpfs", memory: true},
	0x858458f6: {kind: "ramfs", memory: true},
	0xef53:     {kind: "ext4"},
	0x58465342: {kind: "XFS"},
	0x9123683e: {kind: "Btrfs"},
	0x2fc12fc1: {kind: "ZFS"},
	0xf2f52010: {kind: "F2FS"},
}

func diskOf(dir string) (disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return disk{}, err
	}
	d, ok := fileSystems[int64(uint32(s.Type))]
	if !ok {
		d.kind = fmt.Sprintf("file system %#x", uint32(s.Type))
	}
	d.free = int64(s.Bavail) * int64(s.Bsize) // their types differ between machines
	d.inodes, d.limited = int64(s.Ffree), s.Files > 0
	return d, nil
}

// synchronised asks the kernel whether something keeps the clock right, and how
// far off it may be.
func synchronised() (bool, time.Duration, error) {
	var t unix.Timex // no mode is set, so nothing is changed
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, 0, err
	}
	const timeError = 5
	return state != timeError && t.Status&unix.STA_UNSYNC == 0, time.Duration(t.Esterror) * time.Microsecond, nil
}

// fileLimit is how many files a process may open, 0 for one that is started
// like this one.
func fileLimit(pid int) (int, error) {
	if pid == 0 {
		return ownLimit()
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			return strconv.Atoi(soft)
		}
	}
	return 0, fmt.Errorf("/proc/%d/limits does not tell it", pid)
}

// listener names the process that listens on a port, "" if it is not known:
// that of another user cannot be seen.
func listener(port int) string {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			w := strings.Fields(lines.Text())
			if len(w) > 9 && w[3] == "0A" && strings.HasSuffix(w[1], fmt.Sprintf(":%04X", port)) {
				sockets["socket:["+w[9]+"]"] = true
			}
		}
		_ = f.Close() // it was only read
	}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well formed
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && sockets[to] {
			pid := strings.Split(file, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm") // the number alone helps, too
			return strings.TrimSpace(fmt.Sprintf("process %s %s", pid, name))
		}
	}
	return ""
}

// isolation is what this machine and this user have to keep code apart.
func isolation() []string {
	return []string{
		"user namespaces " + userNamespaces(), "seccomp " + seccomp(), "landlock " + landlock(), "cgroup v2 " + cgroup(), "runs " + surroundings(),
	}
}

// userNamespaces tries: there are many ways to forbid them.
func userNamespaces() string {
	path, err := exec.LookPath("true")
	if err != nil {
		return "unknown"
	}
	cmd := exec.Command(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	if err := cmd.Run(); err != nil {
		return "no (" + err.Error() + ")"
	}
	return "yes"
}

func seccomp() string {
	actions, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return "no"
	}
	if bytes.Contains(actions, []byte("user_notif")) {
		return "yes, with user notification"
	}
	return "yes"
}

func landlock() string {
	const versionFlag = 1
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, versionFlag)
	if errno != 0 {
		return "no"
	}
	return fmt.Sprintf("yes (ABI %d)", abi)
}

// cgroup says whether this user may make groups below its own.
func cgroup() string {
	const root = "/sys/fs/cgroup"
	var s unix.Statfs_t
	if unix.Statfs(root, &s) != nil || int64(uint32(s.Type)) != unix.CGROUP2_SUPER_MAGIC {
		return "no"
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "yes, not delegated"
	}
	own := ""
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = path
		}
	}
	dir := filepath.Join(root, own)
	if unix.Access(dir, unix.W_OK) != nil || unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil {
		return "yes, not delegated (Delegate=yes in the systemd unit)"
	}
	controllers, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers")) // none, if it cannot be read
	return "yes, delegated (" + strings.TrimSpace(string(controllers)) + ")"
}

// surroundings say what the machine is, as far as it shows.
func surroundings() string {
	var all []string
	for path, name := range map[string]string{"/.dockerenv": "in a Docker container", "/run/.containerenv": "in a Podman container"} {
		if _, err := os.Stat(path); err == nil {
			all = append(all, name)
		}
	}
	if text, err := os.ReadFile("/run/systemd/container"); err == nil && len(all) == 0 {
		all = append(all, "in a container ("+strings.TrimSpace(string(text))+")")
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		all = append(all, "in Kubernetes")
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil && bytes.Contains(text, []byte(" hypervisor")) {
		all = append(all, "in a virtual machine")
	}
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil {
		all = append(all, "with /dev/kvm")
	}
	if len(all) == 0 {
		return "on a machine of its own, as far as it shows"
	}
	return strings.Join(all, ", ")
}
