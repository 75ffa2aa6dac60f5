package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tty is a terminal with a person at it.
type tty struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	status chan int

	mu    sync.Mutex
	text  string // all that appeared
	seen  int    // how much of it was expected
	grown chan struct{}
}

// openTTY makes a terminal 60 characters wide.
func openTTY(t *testing.T) *tty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Control leaves the file as it is; Fd would make its reads last for ever.
	control, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	failed := control.Control(func(fd uintptr) {
		if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
		if err == nil {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 60})
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	y := &tty{t: t, master: master, slave: slave, status: make(chan int, 1), grown: make(chan struct{}, 1)}
	var reading sync.WaitGroup
	reading.Go(y.watch)
	t.Cleanup(func() {
		slave.Close()
		master.Close()
		reading.Wait()
	})
	return y
}

func (y *tty) watch() {
	buf := make([]byte, 4096)
	for {
		n, err := y.master.Read(buf)
		if err != nil {
			return
		}
		y.mu.Lock()
		y.text += string(buf[:n])
		y.mu.Unlock()
		select {
		case y.grown <- struct{}{}:
		default:
		}
	}
}

// mode is how the terminal is set.
func (y *tty) mode() unix.Termios {
	y.t.Helper()
	m, err := unix.IoctlGetTermios(int(y.slave.Fd()), unix.TCGETS)
	if err != nil {
		y.t.Fatal(err)
	}
	return *m
}

// run starts a command at the terminal.
func (y *tty) run(ctx context.Context, env map[string]string, args ...string) {
	p := &program{args: args, in: y.slave, out: y.slave, err: y.slave, getenv: func(name string) string { return env[name] }}
	go func() { y.status <- p.run(ctx) }()
}

func (y *tty) types(keys string) {
	y.t.Helper()
	if _, err := io.WriteString(y.master, keys); err != nil {
		y.t.Fatal(err)
	}
}

// sees waits until a text appears after what was seen before.
func (y *tty) sees(text string) {
	y.t.Helper()
	limit := time.After(patience)
	for {
		y.mu.Lock()
		at := strings.Index(y.text[y.seen:], text)
		if at >= 0 {
			y.seen += at + len(text)
		}
		all := y.text
		y.mu.Unlock()
		if at >= 0 {
			return
		}
		select {
		case <-y.grown:
		case status := <-y.status:
			y.status <- status
			y.t.Fatalf("parley ended with %d before it showed %q:\n%q", status, text, all)
		case <-limit:
			y.t.Fatalf("%q does not appear in\n%q", text, all)
		}
	}
}

// ends waits for the end of the command.
func (y *tty) ends() int {
	y.t.Helper()
	select {
	case status := <-y.status:
		return status
	case <-time.After(patience):
		y.t.Fatalf("parley does not end; the terminal shows\n%q", y.text)
		return 0
	}
}

var conversationOnScreen = regexp.MustCompile(`conversation, (\S+)\.`)

func (y *tty) conversation() string {
	y.t.Helper()
	y.sees("\r\n" + prompt)
	y.mu.Lock()
	defer y.mu.Unlock()
	m := conversationOnScreen.FindStringSubmatch(y.text)
	if m == nil {
		y.t.Fatalf("the screen names no conversation:\n%q", y.text)
	}
	return m[1]
}

func TestAConversationOnATerminal(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	for _, end := range []string{"\x04", "\x03"} { // Ctrl-D, Ctrl-C
		y := openTTY(t)
		before := y.mode()
		y.run(t.Context(), nil, "chat", "--data", data)
		y.conversation()
		y.types("hello wörld\r")
		y.sees("hello wörld\r\n") // as it was typed
		y.sees("hello wörld\r\n") // as it was answered
		y.sees(prompt)
		y.types("helper\x7f\x7f\x7fllo\r") // an edited line
		y.sees("helllo\r\n")
		y.sees(prompt)
		y.types("\r \r\x1b[A\x1b[A\x1b[A\r") // empty lines say nothing; the arrow key goes back to the first
		y.sees("hello wörld\r\n")
		y.sees("hello wörld\r\n")
		y.sees(prompt)
		y.types("half a line")
		y.sees("half a line")
		if end == "\x04" {
			y.types("\x15") // Ctrl-D ends an empty line alone
		}
		y.types(end)
		if status := y.ends(); status != 0 {
			t.Errorf("it ends with %d:\n%q", status, y.text)
		}
		if y.mode() != before {
			t.Error("the terminal is left changed")
		}
	}
}

// speaker acts for a bot over the Runtime API.
type speaker struct {
	*testing.T
	api          *client
	botID        string
	conversation string
}

func (s speaker) call(path string, in any) {
	s.Helper()
	if err := s.api.call(s.Context(), "POST", path, in, nil); err != nil {
		s.Fatal(err)
	}
}

func (s speaker) says(text string, metadata any) {
	s.Helper()
	payload := map[string]any{"text": text}
	if metadata != nil {
		payload["metadata"] = metadata
	}
	s.call("/v1/chat/messages", map[string]any{"conversationId": s.conversation, "userId": s.botID, "type": "text", "payload": payload, "tags": struct{}{}})
}

func (s speaker) writes(stream string, sequence int, text string) {
	s.Helper()
	s.signal(map[string]any{"type": "delta", "streamId": stream, "sequence": sequence, "delta": text, "createdAt": "2026-07-23T14:15:16.123Z"})
}

func (s speaker) signal(signal any) {
	s.Helper()
	s.call("/v1/chat/actions", map[string]any{"type": "chat:publishMessageStream", "input": map[string]any{"conversationId": s.conversation, "signal": signal}})
}

// What the bot says without being asked appears above what is being typed, and
// what it writes piece by piece as it comes.
func TestAConversationShowsWhatComes(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	e := c.environment(data)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // a bot that answers with a failure
		w.WriteHeader(400)
		_, _ = io.WriteString(w, `{"id":"err_1","code":400,"type":"Runtime","message":"no coffee"}`)
	}))
	t.Cleanup(s.Close)
	botID := newBotAt(t, e, s.URL)
	y := openTTY(t)
	y.run(t.Context(), nil, "chat", "--data", data, "--bot", botID)
	b := speaker{t, newClient(e.APIURL, e.Token).with("x-bot-id", botID), botID, y.conversation()}

	y.types("typed")
	y.sees("typed")
	b.says("by the way\x1b[2J", nil)
	y.sees("by the way[2J\r\n") // no control characters
	y.sees(prompt + "typed")

	b.writes("s1", 0, "Once upon ")
	y.sees("Once upon ")
	y.sees("typed") // moves along
	b.writes("s1", 1, "a time\nthere was")
	y.sees("a time\r\nthere was")
	b.says("an interruption", nil)
	y.sees("\r\nan interruption\r\n")
	b.says("Once upon a time\nthere was 漢字.", map[string]any{"streamId": "s1"})
	y.sees(" 漢字.\r\n")
	y.sees(prompt + "typed")

	y.types("\x15")
	y.sees("     \x1b[5D") // wiped
	b.writes("s2", 0, "short")
	y.sees("short")
	b.says("something else", map[string]any{"streamId": "s2"})
	y.sees("\r\nsomething else\r\n")
	y.sees(prompt)
	b.writes("s3", 0, "I could")
	y.sees("I could")
	b.signal(map[string]any{"type": "abort", "streamId": "s3"})
	y.sees("\r\n* the bot stopped writing\r\n")
	y.sees(prompt)

	y.types("anybody?\r")
	y.sees("* the bot failed: no coffee\r\n")
	y.sees(prompt)
	y.types("\x04")
	if status := y.ends(); status != 0 {
		t.Errorf("it ends with %d", status)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, once := range []string{"Once upon", "there was", "something else", "by the way"} {
		if n := strings.Count(y.text, once); n != 1 {
			t.Errorf("%q appears %d times in\n%q", once, n, y.text)
		}
	}
}

// bridge carries connections to an address, until it is drawn up.
type bridge struct {
	t     *testing.T
	at    string // fixed, so that it can be let down again
	to    string
	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	all   sync.WaitGroup
}

func newBridge(t *testing.T, to string) *bridge {
	b := &bridge{t: t, to: to}
	for b.at == "" { // below the ports that others are given while this one is free
		at := fmt.Sprintf("127.0.0.1:%d", 15_000+rand.IntN(15_000))
		if l, err := net.Listen("tcp", at); err == nil {
			l.Close()
			b.at = at
		}
	}
	b.down()
	t.Cleanup(func() { b.up(); b.all.Wait() })
	return b
}

func (b *bridge) down() {
	b.t.Helper()
	l, err := net.Listen("tcp", b.at)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.l = l
	b.mu.Unlock()
	b.all.Go(func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", b.to)
			if err != nil {
				here.Close()
				continue
			}
			b.mu.Lock()
			if b.l == l {
				b.conns = append(b.conns, here, there)
			} else { // drawn up meanwhile
				here.Close()
				there.Close()
			}
			b.mu.Unlock()
			for from, to := range map[net.Conn]net.Conn{here: there, there: here} {
				b.all.Go(func() {
					_, _ = io.Copy(to, from)
					to.Close()
					from.Close()
				})
			}
		}
	})
}

func (b *bridge) up() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.l == nil {
		return
	}
	b.l.Close()
	for _, c := range b.conns {
		c.Close()
	}
	b.l, b.conns = nil, nil
}

// A connection that breaks is made anew, and nothing that was said meanwhile is missed.
func TestAConversationOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	e := c.environment(data)
	over := newBridge(t, strings.TrimPrefix(e.APIURL, "http://"))
	y := openTTY(t)
	y.run(t.Context(), map[string]string{"PARLEY_CHAT_API_URL": strings.Replace(e.ChatURL, strings.TrimPrefix(e.APIURL, "http://"), over.at, 1)}, "chat")
	b := speaker{t, newClient(e.APIURL, e.Token).with("x-bot-id", e.BotID), e.BotID, y.conversation()}
	y.types("hello\r")
	y.sees("hello\r\n")
	y.sees("hello\r\n")
	for _, said := range []string{"one", "two"} {
		over.up()
		y.sees("* the connection broke; trying again\r\n")
		y.types("lost\r")
		y.sees("* not sent: ")
		b.says("meanwhile "+said, nil)
		over.down()
		y.sees("* connected again\r\n")
		y.sees("meanwhile " + said + "\r\n")
		y.types("back " + said + "\r")
		y.sees("back " + said + "\r\n")
		y.sees("back " + said + "\r\n")
	}
	if err := b.api.call(t.Context(), "DELETE", "/v1/chat/conversations/"+b.conversation, nil, nil); err != nil {
		t.Fatal(err)
	}
	if status := y.ends(); status != 1 {
		t.Errorf("when its conversation is deleted it ends with %d", status)
	}
	if y.mode().Lflag&unix.ECHO == 0 {
		t.Error("the terminal is left without an echo")
	}
}

// Before anything was said there is no position to go on from.
func TestAConversationThatBreaksBeforeItBegins(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	e := c.environment(data)
	over := newBridge(t, strings.TrimPrefix(e.APIURL, "http://"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	y := openTTY(t)
	y.run(ctx, map[string]string{"PARLEY_CHAT_API_URL": strings.Replace(e.ChatURL, strings.TrimPrefix(e.APIURL, "http://"), over.at, 1)}, "chat", "--json")
	y.conversation()
	over.up()
	y.sees("* the connection broke; trying again\r\n")
	over.down()
	y.sees("* connected again\r\n")
	y.types("hi\r")
	y.sees(`"payload":{"text":"hi","type":"text"}`)
	cancel() // as a signal does
	if status := y.ends(); status != 0 {
		t.Errorf("it ends with %d", status)
	}
	over.up()
	r := cli{t, map[string]string{"PARLEY_CHAT_API_URL": "http://" + over.at + "/" + e.BotID}}.run("chat")
	if r.status != 1 {
		t.Errorf("with nobody there it ends with %+v", r)
	}
}
