package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// Where nobody can be asked whether the bot is done, the quiet begins with its
// answer: what comes first, one's own message, says nothing of that.
func TestTheQuietBeginsWithAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stream, events := io.Pipe()
		p := &program{out: io.Discard}
		me := &talk{userID: "me", printed: map[string]bool{}}
		heard, over := make(chan struct{}, 1), make(chan time.Time, 1)
		go func() { _ = p.hear(me, &http.Response{Body: stream}, heard) }()
		go func() {
			if err := awaitQuiet(context.Background(), heard); err != nil {
				t.Error(err)
			}
			over <- time.Now()
		}()
		say := func(user string) {
			fmt.Fprintf(events, "data: {\"type\":\"message_created\",\"data\":{\"id\":\"of %s\",\"userId\":%q,\"createdAt\":\"2026\"}}\n\n", user, user)
		}
		say("me")
		<-time.After(10 * quietAfter)
		answered := time.Now()
		say("bot")
		if quiet := (<-over).Sub(answered); quiet != quietAfter || !me.printed["of bot"] {
			t.Errorf("it ends %v after the answer, having printed %v", quiet, me.printed)
		}
		events.Close()
	})
}
