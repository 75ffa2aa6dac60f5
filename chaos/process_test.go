package chaos

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// resident is the memory of the servers' processes, in KiB.
func resident(t *testing.T, s *parleytest.Setup) (sum int) {
	t.Helper()
	kib, err := residentOf(s)
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func residentOf(s *parleytest.Setup) (sum int, err error) {
	for _, n := range s.Nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(text), "\nVmRSS:")
		if !ok {
			return 0, fmt.Errorf("process %d tells no VmRSS", n.PID())
		}
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			return 0, err
		}
		sum += kib
	}
	return sum, nil
}

// watcher looks at the memory of servers while something else goes on.
type watcher struct {
	t    *testing.T
	stop chan struct{}
	done sync.WaitGroup
	kib  int
	err  error
}

func watch(t *testing.T, s *parleytest.Setup) *watcher {
	w := &watcher{t: t, stop: make(chan struct{})}
	w.done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			kib, err := residentOf(s)
			if w.kib = max(w.kib, kib); err != nil {
				w.err = err
				return
			}
			select {
			case <-tick.C:
			case <-w.stop:
				return
			}
		}
	})
	return w
}

// most ends the watch and returns the most that the servers had, in KiB.
func (w *watcher) most() int {
	w.t.Helper()
	close(w.stop)
	w.done.Wait()
	if w.err != nil {
		w.t.Fatal(w.err)
	}
	return w.kib
}

// gauge reads a value of /metrics, added up over the servers.
func gauge(t *testing.T, s *parleytest.Setup, name string) float64 {
	t.Helper()
	sum, found := metric(t, s, name)
	if found < len(s.Nodes) {
		t.Fatalf("/metrics has no %s", name)
	}
	return sum
}

// metric is gauge for what may not be there, and says at how many servers it is.
func metric(t *testing.T, s *parleytest.Setup, name string) (sum float64, found int) {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`)
	for _, n := range s.Nodes {
		answer, err := client.Get("http://" + n.Addr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		m := line.FindSubmatch(text)
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, found = sum+v, found+1
	}
	return sum, found
}
