package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "modernc.org/sqlite" // the driver of the group-commit floor
)

// The floors are servers in this same binary, started as children with their
// name in this variable. A child prints its address and ends with its standard input.
const childVariable = "PARLEY_BENCH_CHILD"

// databaseVariable tells a floor which PostgreSQL database it has.
const databaseVariable = "PARLEY_BENCH_DATABASE"

var children = map[string]func(l net.Listener) error{
	"tcp":         tcpFloor,
	"echo":        echoFloor,
	"commit":      commitFloor,
	"insert":      insertFloor,
	"hub":         hubFloor,
	"integration": integrationFloor,
	"bare":        func(l net.Listener) error { return http.Serve(l, http.HandlerFunc(ok)) },
}

func child(which string) {
	err := serveChild(which)
	fmt.Fprintln(os.Stderr, "bench:", which, err)
	os.Exit(1)
}

func serveChild(which string) error {
	if which == wireChild {
		return serveWire() // it opens a port by itself
	}
	serve, ok := children[which]
	if !ok {
		return fmt.Errorf("no floor of that name")
	}
	addr := os.Getenv("PARLEY_BENCH_ADDR")
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	running.Go(func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent is gone or done, however it says so
		os.Exit(0)
	})
	fmt.Println(l.Addr())
	return serve(l)
}

// floor is a child that runs.
type floor struct {
	addr string
	pid  int
}

// startFloor runs a floor and gives its address.
func startFloor(b *bench, which string) (addr string, err error) {
	f, err := startChild(b, which)
	if err != nil {
		return "", err
	}
	return f.addr, nil
}

// startChild runs a program of this binary until the run is over.
func startChild(b *bench, which string, env ...string) (*floor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Dir, cmd.Stderr = b.dir, os.Stderr
	cmd.Env = append(append(os.Environ(), childVariable+"="+which), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.later(func() error {
		_ = in.Close() // it ends by this, and Wait tells how
		return cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("floor %s: %w", which, err)
	}
	return &floor{strings.TrimSpace(line), cmd.Process.Pid}, nil
}

// tcpFloor sends back 64 bytes at a time.
func tcpFloor(l net.Listener) error {
	var running sync.WaitGroup
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		running.Go(func() {
			defer c.Close()
			var b [64]byte
			for {
				if _, err := io.ReadFull(c, b[:]); err != nil {
					return
				}
				if _, err := c.Write(b[:]); err != nil {
					return
				}
			}
		})
	}
}

// incoming is the body that the floors take, of the size of a real message.
type incoming struct {
	UserID         string            `json:"userId"`
	ConversationID string            `json:"conversationId"`
	Type           string            `json:"type"`
	Payload        map[string]any    `json:"payload"`
	Tags           map[string]string `json:"tags"`
}

type stored struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	incoming
}

func accept(r *http.Request) (stored, error) {
	var in incoming
	err := json.NewDecoder(r.Body).Decode(&in)
	return stored{CreatedAt: time.Now().UTC(), incoming: in}, err
}

func answer(w http.ResponseWriter, m stored) {
	text, err := json.Marshal(map[string]any{"message": m})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(text) // the client that is gone does not read it
}

// echoFloor decodes, encodes, and keeps nothing.
func echoFloor(l net.Listener) error {
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, err := accept(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		m.ID = "msg_00000000000000000000000000"
		answer(w, m)
	}))
}

// commitFloor stores one row durably before it answers: the least that a server
// of durable messages does. One goroutine turns what waits into one transaction.
func commitFloor(l net.Listener) error {
	s, err := openFloor(filepath.Join(".", "floor.db"))
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.loop(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: commit floor:", err)
			os.Exit(1)
		}
	})
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, err := accept(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		row := &row{m: m, done: make(chan struct{})}
		s.queue <- row
		<-row.done
		answer(w, row.m)
	}))
}

type row struct {
	m    stored
	done chan struct{}
}

type floorStore struct {
	conn   *sql.Conn
	insert *sql.Stmt
	queue  chan *row
	seq    int64
}

func openFloor(file string) (*floorStore, error) {
	ctx := context.Background()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-8192)&_pragma=wal_autocheckpoint(4000)")
	if err != nil {
		return nil, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range []string{
		`CREATE TABLE messages (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, conversation TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL)`,
		`CREATE INDEX messages_conversation ON messages (conversation, seq)`,
	} {
		if _, err := c.ExecContext(ctx, q); err != nil {
			return nil, err
		}
	}
	insert, err := c.PrepareContext(ctx, `INSERT INTO messages (id, conversation, seq, body) VALUES ($1, $2, $3, $4)`)
	if err != nil {
		return nil, err
	}
	return &floorStore{conn: c, insert: insert, queue: make(chan *row, 1024)}, nil
}

func (s *floorStore) loop() error {
	const most = 256
	batch := make([]*row, 0, most)
	for {
		batch = append(batch[:0], <-s.queue)
	more:
		for len(batch) < most {
			select {
			case r := <-s.queue:
				batch = append(batch, r)
			default:
				break more
			}
		}
		if err := s.write(batch); err != nil {
			return err
		}
		for _, r := range batch {
			close(r.done)
		}
	}
}

func (s *floorStore) write(batch []*row) error {
	ctx := context.Background()
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, r := range batch {
		s.seq++
		r.m.ID = fmt.Sprintf("msg_%026d", s.seq)
		body, err := json.Marshal(r.m)
		if err != nil {
			return err
		}
		if _, err := s.insert.ExecContext(ctx, r.m.ID, r.m.ConversationID, s.seq, string(body)); err != nil {
			return err
		}
	}
	_, err := s.conn.ExecContext(ctx, "COMMIT")
	return err
}

// insertFloor is the same on PostgreSQL: one row in a transaction of its own,
// over as many connections as a server of the product writes with.
func insertFloor(l net.Listener) error {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(os.Getenv(databaseVariable))
	if err != nil {
		return err
	}
	config.MaxConns = 16
	db, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	for _, q := range []string{
		`CREATE TABLE messages (n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id TEXT NOT NULL UNIQUE, conversation TEXT NOT NULL, seq BIGINT NOT NULL, body TEXT NOT NULL)`,
		`CREATE INDEX messages_conversation ON messages (conversation, seq)`,
	} {
		if _, err := db.Exec(ctx, q); err != nil {
			return err
		}
	}
	var last atomic.Int64
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, err := accept(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		seq := last.Add(1)
		m.ID = fmt.Sprintf("msg_%026d", seq)
		body, err := json.Marshal(m)
		if err == nil {
			_, err = db.Exec(ctx, `INSERT INTO messages (id, conversation, seq, body) VALUES ($1, $2, $3, $4)`, m.ID, m.ConversationID, seq, string(body))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, m)
	}))
}

func ok(http.ResponseWriter, *http.Request) {}

// hubFloor fans what is posted out to every listener: connections taken over
// after their headers, one write each, nothing stored, nobody watched.
func hubFloor(l net.Listener) error {
	h := &hub{frames: make(chan []byte, 64)}
	var running sync.WaitGroup
	running.Go(h.loop)
	return http.Serve(l, h)
}

type hub struct {
	mu        sync.Mutex
	listeners []net.Conn
	frames    chan []byte
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		// Locked before the head is written: who has read it hears what comes next.
		h.mu.Lock()
		defer h.mu.Unlock()
		c, err := hijack(w)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h.listeners = append(h.listeners, c)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.frames <- append(append([]byte("id: 1\nevent: message\ndata: "), body...), "\n\n"...)
	w.WriteHeader(http.StatusCreated)
}

func (h *hub) loop() {
	for frame := range h.frames {
		h.mu.Lock()
		kept := h.listeners[:0]
		for _, c := range h.listeners {
			if _, err := c.Write(frame); err != nil {
				_ = c.Close() // it is gone
				continue
			}
			kept = append(kept, c)
		}
		h.listeners = kept
		h.mu.Unlock()
	}
}

func hijack(w http.ResponseWriter) (net.Conn, error) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n")
	return c, err
}
