package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// watched are the processes whose CPU time a step takes.
type watched struct {
	nodes    []int // servers of the product, or the floor that stands for one
	database int   // the first process of PostgreSQL; 0 = none
	wire     int   // the NATS server; 0 = none
}

// cost is the CPU time of watched processes: since they began, or for one operation.
type cost struct {
	nodes    time.Duration // of all together
	busiest  time.Duration // of the one that took the most
	database time.Duration
	wire     time.Duration
}

// metered runs a step and notes what each of its operations has cost. What is
// counted is user and system time of whole processes, so that it also holds what
// they do beside the operations.
func metered(w watched, step func() (sample, error)) (sample, error) {
	before, err := w.read()
	if err != nil {
		return sample{}, err
	}
	s, err := step()
	if err != nil {
		return s, err
	}
	after, err := w.read()
	s.cost = after.since(before, s.all)
	return s, err
}

// reading is the CPU time that processes have taken up to now.
type reading struct {
	nodes          []time.Duration
	database, wire time.Duration
}

func (w watched) read() (r reading, err error) {
	for _, pid := range w.nodes {
		took, err := ofProcess(pid)
		if err != nil {
			return r, err
		}
		r.nodes = append(r.nodes, took)
	}
	if w.database != 0 {
		if r.database, err = ofFamily(w.database); err != nil {
			return r, err
		}
	}
	if w.wire != 0 {
		r.wire, err = ofProcess(w.wire)
	}
	return r, err
}

// since is what each of n operations has taken since an earlier reading.
func (r reading) since(before reading, n int) cost {
	var c cost
	for i, took := range r.nodes {
		took -= before.nodes[i]
		c.nodes += took
		c.busiest = max(c.busiest, took)
	}
	n = max(n, 1)
	each := time.Duration(n)
	return cost{c.nodes / each, c.busiest / each, (r.database - before.database) / each, (r.wire - before.wire) / each}
}

// tick is the unit of the times in /proc/PID/stat.
const tick = 10 * time.Millisecond

// stat is what is read of /proc/PID/stat.
type stat struct {
	parent        int
	own, children time.Duration // of children that have ended and were waited for
}

func readStat(pid int) (s stat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	// The name of the program may have spaces; it ends with the last parenthesis.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return s, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	var n [4]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(f[11+i], 10, 64); err != nil {
			return s, err
		}
	}
	s.parent, err = strconv.Atoi(f[1])
	s.own, s.children = time.Duration(n[0]+n[1])*tick, time.Duration(n[2]+n[3])*tick
	return s, err
}

func ofProcess(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	return s.own, err
}

// ofFamily is the time of a process and its children, also of those that have ended.
func ofFamily(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	total := s.own + s.children
	err = eachChild(pid, func(_ int, s stat) error {
		total += s.own
		return nil
	})
	return total, err
}

// eachChild visits the children of a process that are alive.
func eachChild(parent int, visit func(pid int, s stat) error) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if err != nil || s.parent != parent {
			continue // it has ended, or is of somebody else
		}
		if err := visit(pid, s); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// written is how many bytes a process has given to the disk.
func written(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("no write_bytes for process %d", pid)
}

// writtenByFamily is written for a process and its children.
func writtenByFamily(pid int) (int64, error) {
	total, err := written(pid)
	if err != nil {
		return 0, err
	}
	err = eachChild(pid, func(child int, _ stat) error {
		n, err := written(child)
		total += n
		return err
	})
	return total, err
}
