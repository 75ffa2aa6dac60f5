package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// sent is the answer to a chat message, for one who waits.
type sent struct {
	Replies []struct {
		Payload struct{ Text string } `json:"payload"`
	} `json:"replies"`
	Finished *bool `json:"finished"`
}

// asks says something and waits for the bot.
func (v *visitor) asks(text string) <-chan sent {
	got := make(chan sent, 1)
	go func() {
		var out sent
		code := v.call("POST", v.path+"/messages?wait=60", v.header, map[string]any{
			"conversationId": v.conversation, "payload": map[string]string{"type": "text", "text": text},
		}, &out)
		if code != 201 || out.Finished == nil {
			v.t.Errorf("createMessage answers %d %+v", code, out)
		}
		got <- out
	}()
	return got
}

// A server that stops lets the bots at work finish, and answers who waits: with
// the replies, or that there is more to come.
func TestAStoppingServerAnswersWhoWaits(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			called := make(chan struct{}, 100)
			var botID string
			bot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var in struct {
					Event struct {
						ConversationID string `json:"conversationId"`
						Payload        struct {
							Message struct {
								Payload struct{ Text string } `json:"payload"`
							} `json:"message"`
						} `json:"payload"`
					} `json:"event"`
				}
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
					t.Error(err)
				}
				called <- struct{}{}
				if in.Event.Payload.Message.Payload.Text == "later" {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				<-s.draining
				if code := s.call("POST", "/v1/chat/messages", s.as(botID), map[string]any{
					"conversationId": in.Event.ConversationID, "userId": botID, "type": "text", "tags": struct{}{}, "payload": map[string]string{"text": "done"},
				}, nil); code != 201 {
					t.Errorf("the bot's createMessage answers %d while the server drains, want 201", code)
				}
				_, _ = io.WriteString(w, "{}")
			}))
			defer bot.Close()
			botID = s.newBot(bot.URL)
			one, other := s.visit(s.door(botID)), s.visit(s.door(botID))
			now := one.asks("now")
			<-called
			later := other.asks("later")
			<-called
			must(t, s.stop())
			if got := <-now; !*got.Finished || len(got.Replies) != 1 || got.Replies[0].Payload.Text != "done" {
				t.Errorf("who waits for a bot at work gets %+v", got)
			}
			if got := <-later; *got.Finished || len(got.Replies) > 0 {
				t.Errorf("who waits for a bot that is down gets %+v", got)
			}
		})
	}
}
