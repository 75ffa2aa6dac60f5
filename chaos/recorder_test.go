package chaos

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// recorder is the program of a bot. It notes every event that reaches it, and of
// some it refuses the first try, with a 500 or by hanging up.
type recorder struct {
	url    string
	refuse uint32 // one event in so many, of each sort; 0 = none

	mu       sync.Mutex
	events   map[string]*received // by message
	order    map[string][]string  // messages of a conversation, in the order of their first tries
	problems []string             // what a bot must not see
}

// received is an event with the tries that reached the bot.
type received struct {
	event, conversation string
	tries               []try
}

type try struct {
	began, ended time.Time
	accepted     bool
}

func newRecorder(t *testing.T, refuse uint32) *recorder {
	b := &recorder{refuse: refuse, events: map[string]*received{}, order: map[string][]string{}}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// ServeHTTP takes one operation.
func (b *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Event struct {
			ID, Type                  string
			ConversationID, MessageID string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return // a server that was killed while it spoke
	}
	if r.Header.Get("x-bp-operation") != "event_received" || in.Event.Type != "message_created" {
		_, _ = io.WriteString(w, "{}")
		return
	}
	accepted := b.begin(r.Header, in.Event.ID, in.Event.ConversationID, in.Event.MessageID)
	defer b.end(in.Event.MessageID, accepted, time.Now())
	switch {
	case accepted:
		_, _ = io.WriteString(w, "{}")
	case lot(in.Event.ID)%2 == 0:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		panic(http.ErrAbortHandler) // hangs up
	}
}

// begin notes a try and decides about it.
func (b *recorder) begin(h http.Header, event, conversation, message string) (accepted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.events[message]
	if v == nil {
		v = &received{event: event, conversation: conversation}
		b.events[message] = v
		b.order[conversation] = append(b.order[conversation], message)
	}
	first := len(v.tries) == 0
	v.tries = append(v.tries, try{began: time.Now()})
	if v.event != event || h.Get("webhook-id") != event {
		b.problems = append(b.problems, fmt.Sprintf("message %s came as event %s, before as %s, with webhook-id %s", message, event, v.event, h.Get("webhook-id")))
	}
	// A try that the server could not note any more does not count.
	if n, err := strconv.Atoi(h.Get("x-parley-attempt")); err != nil || n < 1 || n > len(v.tries) {
		b.problems = append(b.problems, fmt.Sprintf("try %d of event %s says that it is attempt %q", len(v.tries), event, h.Get("x-parley-attempt")))
	}
	return !first || b.refuse == 0 || lot(event)/2%b.refuse != 0
}

// lot is a number that goes with an event.
func lot(event string) uint32 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, event) // never fails
	return h.Sum32()
}

func (b *recorder) end(message string, accepted bool, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tries := b.events[message].tries
	for i := range tries {
		if tries[i].ended.IsZero() && !tries[i].began.After(began) {
			tries[i].ended, tries[i].accepted = time.Now(), accepted
			return
		}
	}
}

// heard are the messages of a conversation in the order in which they first came.
func (b *recorder) heard(conversation string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.order[conversation])
}

const (
	// noted is how long after a try its outcome is on the disk, on a machine at its limit.
	noted = 10 * time.Second
	// late is how long after the end of a server the bot may get what it sent, there.
	late = 2 * time.Second
	// unnoted is how many outcomes of a lane may wait for that, and the try in hand.
	unnoted = 64 + 1
)

// again counts the events that came once more after the bot had accepted them.
// Only a kill explains that, of a server that was at it, or had no time to note
// how it ended.
func (b *recorder) again(t *testing.T, kills []time.Time) (n int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	cost := map[string]int{} // by kill and conversation
	for message, v := range b.events {
		for i := 1; i < len(v.tries); i++ {
			before, this := v.tries[i-1], v.tries[i]
			if !before.ended.IsZero() && !before.accepted {
				continue
			}
			n++
			kill := slices.IndexFunc(kills, func(k time.Time) bool {
				return k.After(before.began.Add(-late)) && k.Before(this.began) && (before.ended.IsZero() || k.Before(before.ended.Add(noted)))
			})
			if kill < 0 {
				t.Errorf("message %s was accepted at %v and came again at %v, and no server was killed in between; kills: %v", message, before.ended, this.began, kills)
				continue
			}
			cost[fmt.Sprint(v.conversation, " at kill ", kill)]++
		}
	}
	for where, n := range cost {
		if n > unnoted {
			t.Errorf("%d messages of conversation %s came again, more than can have been under way", n, where)
		}
	}
	for _, problem := range b.problems {
		t.Error(problem)
	}
	return n
}
