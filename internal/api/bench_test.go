package api_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/page"
)

// A body of about 150 bytes and an answer of about 500, as createMessage has them.
type benchText struct {
	Type string `json:"type" enum:"text"`
	Text string `json:"text" min:"1" max:"10000"`
}

type benchImage struct {
	Type     string `json:"type" enum:"image"`
	ImageURL string `json:"imageUrl" format:"uri"`
}

type benchPayload struct{ api.Raw }

func (benchPayload) Union() api.Variants {
	return api.Variants{By: "type", Types: []api.Variant{api.VariantOf[benchText]("text"), api.VariantOf[benchImage]("image")}}
}

type benchCreate struct {
	ConversationID string            `json:"conversationId" format:"id"`
	Payload        benchPayload      `json:"payload"`
	Tags           map[string]string `json:"tags,omitempty"`
}

type benchMessage struct {
	ID             string            `json:"id"`
	CreatedAt      api.Time          `json:"createdAt"`
	UpdatedAt      api.Time          `json:"updatedAt"`
	Direction      string            `json:"direction" enum:"incoming,outgoing"`
	ConversationID string            `json:"conversationId"`
	UserID         string            `json:"userId"`
	Type           string            `json:"type"`
	Payload        benchPayload      `json:"payload"`
	Tags           map[string]string `json:"tags"`
	Origin         string            `json:"origin,omitempty"`
}

type benchCreated struct {
	Message *benchMessage `json:"message"`
}

type benchList struct {
	page.Query
	ConversationID string            `query:"conversationId" format:"id"`
	Tags           map[string]string `query:"tags"`
}

type benchListed struct {
	Messages []*benchMessage `json:"messages"`
	Meta     page.Meta       `json:"meta"`
}

func benchAPI() *api.API {
	one := func(conversation string, p benchPayload) *benchMessage {
		return &benchMessage{
			ID: "msg_01JD3ZK8B9Q2W5T7Y4X6V8N1M0", CreatedAt: 1763640300123, UpdatedAt: 1763640300123, Direction: "incoming",
			ConversationID: conversation, UserID: "user_01JD3ZK8B9Q2W5T7Y4X6V8N1M0", Type: "text", Payload: p, Tags: map[string]string{"chat:id": "m-17"},
		}
	}
	var twenty []*benchMessage
	for range 20 {
		twenty = append(twenty, one("conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0", benchPayload{api.Raw(`{"type":"text","text":"hello, this is a message of a usual length for a chat"}`)}))
	}
	return api.New(api.Config{
		Name: "bench",
		Admit: func(*http.Request, auth.Class) (auth.Principal, error) {
			return auth.Principal{Kind: auth.BotKey, TokenID: "tok_1", BotID: "bot_1"}, nil
		},
		Ops: []api.Op{
			api.Handle("createMessage", "POST /v1/chat/messages", auth.Runtime, func(_ context.Context, in benchCreate) (benchCreated, error) {
				return benchCreated{one(in.ConversationID, in.Payload)}, nil
			}, api.Created),
			api.Handle("listMessages", "GET /v1/chat/messages", auth.Runtime, func(context.Context, benchList) (benchListed, error) {
				return benchListed{Messages: twenty}, nil
			}),
		},
	})
}

// discard is a ResponseWriter that is used again and again, as a connection's is.
type discard struct {
	h http.Header
	n int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { d.n += len(b); return len(b), nil }

const benchBody = `{"conversationId":"conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0","payload":{"type":"text","text":"Hello there, how can I help you today?"},"tags":{"chat:id":"m-17"}}`

func BenchmarkHandle(b *testing.B) {
	a := benchAPI()
	cases := []struct{ name, method, path, body string }{
		{"create", "POST", "/v1/chat/messages", benchBody},
		{"list", "GET", "/v1/chat/messages?conversationId=conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0&tags.chat%3Aid=m-17", ""},
		{"refused", "POST", "/v1/chat/messages", `{"conversationId":"conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0"}`},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			r, err := http.NewRequest(c.method, c.path, nil)
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			text := strings.NewReader(c.body)
			r.Body, r.ContentLength = io.NopCloser(text), int64(len(c.body))
			w := &discard{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				text.Reset(c.body)
				clear(w.h)
				a.ServeHTTP(w, r)
			}
			b.SetBytes(int64(len(c.body)))
		})
	}
}
