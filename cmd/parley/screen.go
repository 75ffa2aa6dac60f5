package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const prompt = "> "

// screen is a terminal with a line to type in at its bottom. What others say
// appears above that line, whatever has been typed so far.
type screen struct {
	term    *term.Terminal
	keys    *keys
	restore func() error
	// interrupt ends the reading of lines, now and for good. It may be called from anywhere, and again.
	interrupt func()

	mu        sync.Mutex
	streaming bool // a text appears piece by piece, in place of the prompt
	begun     bool // its last line has something in it
}

// openScreen takes over the terminal that in and out are until it is closed. It
// returns nil if they are none.
func openScreen(in io.Reader, out io.Writer) (*screen, error) {
	from, ok := in.(*os.File)
	to, ok2 := out.(*os.File)
	if !ok || !ok2 || !term.IsTerminal(int(from.Fd())) || !term.IsTerminal(int(to.Fd())) {
		return nil, nil
	}
	before, err := term.MakeRaw(int(from.Fd()))
	if err != nil {
		return nil, err
	}
	s := &screen{keys: &keys{pressed: make(chan []byte), redraw: make(chan struct{}, 1), done: make(chan struct{})}}
	s.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{s.keys, out}, prompt)
	s.term.History = &spoken{}
	s.interrupt = sync.OnceFunc(func() { close(s.keys.done) })
	s.keys.wait = func() {
		// The size is looked at between two keys: not every system tells of a change.
		if width, height, err := term.GetSize(int(to.Fd())); err == nil && width > 0 {
			_ = s.term.SetSize(width, height) // what fails to appear now will with the next key
		}
	}
	s.restore = func() error { return term.Restore(int(from.Fd()), before) }
	// A read from a terminal cannot be interrupted: it may outlast the screen.
	time.AfterFunc(0, func() { s.keys.read(from) })
	return s, nil
}

// close gives the terminal back.
func (s *screen) close() error {
	s.interrupt()
	s.write("\n")
	return s.restore()
}

// readLine returns the next line that was entered, io.EOF after Ctrl-D, Ctrl-C and
// an interruption.
func (s *screen) readLine() (string, error) {
	for {
		line, err := s.term.ReadLine()
		if !errors.Is(err, errRedraw) {
			return line, err
		}
	}
}

// write leaves the reporting of errors to the reader, who meets them too.
func (s *screen) write(text string) { _, _ = s.term.Write([]byte(text)) }

// print shows a text on lines of its own.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streaming && s.begun {
		text = "\n" + text
	}
	s.begun = false
	s.write(text + "\n")
}

// stream shows a piece of a text that is not whole yet. Until its end the prompt
// gives way to it.
func (s *screen) stream(piece string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.streaming {
		s.streaming = true
		s.term.SetPrompt("")
	}
	if piece != "" {
		s.write(piece)
		s.begun = !strings.HasSuffix(piece, "\n")
	}
}

// end shows the last piece and brings the prompt back.
func (s *screen) end(piece string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun || piece != "" {
		piece += "\n"
	}
	s.streaming, s.begun = false, false
	s.term.SetPrompt(prompt)
	s.write(piece)
	select {
	case s.keys.redraw <- struct{}{}:
	default: // it is on its way
	}
}

// errRedraw ends the reading of a line, so that it begins again with the prompt.
var errRedraw = errors.New("redraw the prompt")

// spoken is what was entered before, which the arrow keys bring back.
type spoken struct{ lines []string }

// Add implements term.History.
func (h *spoken) Add(line string) {
	if line = strings.TrimSpace(line); line != "" && (len(h.lines) == 0 || h.At(0) != line) {
		h.lines = append(h.lines, line)
	}
}

// Len implements term.History.
func (h *spoken) Len() int { return len(h.lines) }

// At implements term.History: 0 is the newest.
func (h *spoken) At(i int) string { return h.lines[len(h.lines)-1-i] }

// keys hands on what is typed until it is done.
type keys struct {
	pressed chan []byte // closed at the end
	redraw  chan struct{}
	done    chan struct{}
	wait    func() // called before each wait
	rest    []byte
}

// read passes on what comes from a terminal.
func (k *keys) read(from io.Reader) {
	defer close(k.pressed)
	for {
		buf := make([]byte, 256)
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case k.pressed <- buf[:n]:
			case <-k.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (k *keys) Read(p []byte) (int, error) {
	if len(k.rest) == 0 {
		k.wait()
		var ok bool
		select {
		case k.rest, ok = <-k.pressed:
			if !ok {
				return 0, io.EOF
			}
		case <-k.redraw:
			return 0, errRedraw
		case <-k.done:
			return 0, io.EOF
		}
	}
	n := copy(p, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}
