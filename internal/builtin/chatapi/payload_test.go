package chatapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/fault"
)

// parts are payloads that a bloc may hold; goodPayloads are all kinds, each
// with as little and as much as it may have.
var (
	parts = []string{
		`{"type":"text","text":"a"}`,
		`{"text":"type last","type":"text"}`,
		`{"type":"text","text":"a","extra":{"kept":[1,null,"x"]},"value":7}`,
		`{"type":"markdown","markdown":"*a*"}`,
		`{"type":"image","imageUrl":"not checked to be a URL"}`,
		`{"type":"image","imageUrl":"https://x/a.png","title":"t"}`,
		`{"type":"audio","audioUrl":"https://x/a.mp3"}`,
		`{"type":"video","videoUrl":"https://x/a.mp4"}`,
		`{"type":"file","fileUrl":"https://x/a.pdf"}`,
		`{"type":"file","fileUrl":"https://x/a.pdf","title":"t"}`,
		`{"type":"location","latitude":0,"longitude":-122.41941550000001}`,
		`{"type":"location","latitude":1e2,"longitude":1,"address":"","title":""}`,
		`{"type":"text","text":"a","payload":{"type":"x"},"items":[{"type":"y","payload":{}}]}`,
	}
	aCard        = `{"type":"card","title":"t","subtitle":"s","imageUrl":"u","actions":[{"action":"postback","label":"l","value":"v"},{"action":"url","label":"l","value":"v"},{"action":"say","label":"l","value":"v","more":1}],"extra":true}`
	bareCard     = `{"type":"card","title":"t","actions":[]}`
	goodPayloads = append([]string{
		aCard, bareCard,
		`{"type":"carousel","items":[]}`,
		`{"type":"carousel","items":[` + aCard + `,` + bareCard + `],"extra":[]}`,
		`{"type":"choice","text":"t","options":[]}`,
		`{"type":"choice","text":"t","options":[{"label":"l","value":"v"},{"label":"l","value":"v","more":{}}]}`,
		`{"type":"dropdown","text":"t","options":[{"label":"l","value":"v"}],"extra":1}`,
		`{"type":"bloc","items":[]}`,
		`{"items":[` + strings.Join(parts, ",") + `],"type":"bloc","extra":{"type":"text"}}`,
	}, parts...)
)

var payloadSchema = api.SchemaOf[payload]()

func TestGoodPayloadsAreAccepted(t *testing.T) {
	t.Parallel()
	for _, text := range goodPayloads {
		if err := payloadSchema.Validate("payload", []byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The published schemas, member by member. The error names the place.
func TestBadPayloadsAreRefused(t *testing.T) {
	t.Parallel()
	schema := api.SchemaOf[createMessageInput]()
	for _, c := range []struct{ payload, says string }{
		{`{}`, "payload.type is required; it is one of text, markdown, image"},
		{`{"type":"nope"}`, "payload.type must be one of text, markdown"},
		{`{"type":7,"text":"a"}`, "payload.type must be one of"},
		{`{"type":"Text","text":"a"}`, "payload.type must be one of"},
		{`{"type":"text"}`, "payload.text is required"},
		{`{"type":"text","text":""}`, "payload.text must not be empty"},
		{`{"type":"text","text":7}`, "payload.text must be a string"},
		{`{"type":"text","text":null}`, "payload.text must not be null"},
		{`{"type":"text","markdown":"a"}`, "payload.text is required"},
		{`{"type":"markdown","markdown":""}`, "payload.markdown must not be empty"},
		{`{"type":"image","imageUrl":""}`, "payload.imageUrl must not be empty"},
		{`{"type":"audio","imageUrl":"u"}`, "payload.audioUrl is required"},
		{`{"type":"video","videoUrl":[]}`, "payload.videoUrl must be a string"},
		{`{"type":"file","title":"t"}`, "payload.fileUrl is required"},
		{`{"type":"file","fileUrl":"u","title":""}`, "payload.title must not be empty"},
		{`{"type":"location","latitude":1}`, "payload.longitude is required"},
		{`{"type":"location","latitude":"1","longitude":2}`, "payload.latitude must be a number"},
		{`{"type":"location","latitude":1,"longitude":2,"address":7}`, "payload.address must be a string"},
		{`{"type":"card","actions":[]}`, "payload.title is required"},
		{`{"type":"card","title":"t"}`, "payload.actions is required"},
		{`{"type":"card","title":"t","actions":{}}`, "payload.actions must be an array"},
		{`{"type":"card","title":"t","subtitle":"","actions":[]}`, "payload.subtitle must not be empty"},
		{`{"type":"card","title":"t","actions":[{"action":"jump","label":"l","value":"v"}]}`, "payload.actions[0].action must be one of postback, url, say"},
		{`{"type":"card","title":"t","actions":[{"action":"say","label":"l","value":"v"},{"action":"say","label":"l"}]}`, "payload.actions[1].value is required"},
		{`{"type":"card","title":"t","actions":[{"action":"say","label":"","value":"v"}]}`, "payload.actions[0].label must not be empty"},
		{`{"type":"card","title":"t","actions":["x"]}`, "payload.actions[0] must be an object"},
		{`{"type":"carousel"}`, "payload.items is required"},
		{`{"type":"carousel","items":{}}`, "payload.items must be an array"},
		{`{"type":"carousel","items":[{"title":"t","actions":[]}]}`, "payload.items[0].type is required"},
		{`{"type":"carousel","items":[` + bareCard + `,{"type":"text","text":"a"}]}`, "payload.items[1].type must be"},
		{`{"type":"carousel","items":[{"type":"card","title":"","actions":[]}]}`, "payload.items[0].title must not be empty"},
		{`{"type":"choice","options":[]}`, "payload.text is required"},
		{`{"type":"choice","text":"t"}`, "payload.options is required"},
		{`{"type":"dropdown","text":"t","options":[{"label":"l"}]}`, "payload.options[0].value is required"},
		{`{"type":"dropdown","text":"t","options":[{"label":"l","value":7}]}`, "payload.options[0].value must be a string"},
		{`{"type":"bloc"}`, "payload.items is required"},
		{`{"type":"bloc","items":"x"}`, "payload.items must be an array"},
		{`{"type":"bloc","items":[{"type":"text","text":"a"},{"type":"text","text":""}]}`, "payload.items[1].text must not be empty"},
		{`{"type":"bloc","items":[` + bareCard + `]}`, "payload.items[0].type must be one of text, markdown, image, audio, video, file, location"},
		{`{"type":"bloc","items":[{"type":"bloc","items":[]}]}`, "payload.items[0].type must be one of"},
		{`{"type":"bloc","items":[{"type":"text","payload":{"text":"a"}}]}`, "payload.items[0].text is required"},
		{`{"type":"bloc","items":[null]}`, "payload.items[0] must not be null"},
		{`{"type":"text","text":"a","text":"b"}`, "twice"},
		{`[]`, "payload must be an object"},
	} {
		err := schema.Validate("createMessage", []byte(`{"conversationId":"c","payload":`+c.payload+`}`))
		if !fault.Is(err, fault.InvalidPayload) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", c.payload, err, c.says)
		}
	}
}

// there maps a chat message to the bot's form, and back maps it to chat again.
func thereAndBack(payloadText string, metadata api.Object) (typ string, runtime, back, backMetadata api.Object) {
	typ, runtime = fromChat(asPayload(payloadText), metadata)
	back, backMetadata = toChat(typ, runtime)
	return typ, runtime, back, backMetadata
}

func TestMappingThereAndBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ chat, typ, runtime string }{
		{`{"type":"text","text":"a"}`, "text", `{"text":"a"}`},
		{`{"text":"a","type":"text","b":[]}`, "text", `{"text":"a","b":[]}`},
		{bareCard, "card", `{"title":"t","actions":[]}`},
		{`{"type":"carousel","items":[` + bareCard + `]}`, "carousel", `{"items":[{"title":"t","actions":[]}]}`},
		{`{"items":[{"type":"image","imageUrl":"u"}],"type":"bloc"}`, "bloc", `{"items":[{"type":"image","payload":{"imageUrl":"u"}}]}`},
		{`{"type":"bloc","items":[{"payload":1,"text":"a","type":"text"}]}`, "bloc", `{"items":[{"type":"text","payload":{"payload":1,"text":"a"}}]}`},
		{`{"type":"choice","text":"t","options":[{"type":"x","label":"l","value":"v"}]}`, "choice", `{"text":"t","options":[{"type":"x","label":"l","value":"v"}]}`},
	} {
		typ, runtime, back, metadata := thereAndBack(c.chat, nil)
		if typ != c.typ || cmp.Diff(parsed(t, c.runtime), parsed(t, string(runtime))) != "" {
			t.Errorf("%s: the bot's form is %s %s, want %s %s", c.chat, typ, runtime, c.typ, c.runtime)
		}
		if diff := cmp.Diff(parsed(t, c.chat), parsed(t, string(back))); diff != "" || metadata != nil {
			t.Errorf("%s came back as %s with %s", c.chat, back, metadata)
		}
	}
}

// keepsValue checks that an accepted message comes back from the bot's form
// with the same JSON value. Metadata inside the payload comes back beside it.
func keepsValue(t *testing.T, payloadText string, metadata api.Object) {
	t.Helper()
	_, runtime, back, backMetadata := thereAndBack(payloadText, metadata)
	if !json.Valid(runtime) {
		t.Fatalf("the bot's form of %s is no JSON: %s", payloadText, runtime)
	}
	want := parsed(t, payloadText).(map[string]any)
	var wantMetadata any
	if metadata != nil {
		wantMetadata = parsed(t, string(metadata))
	} else if inside, ok := want["metadata"].(map[string]any); ok {
		wantMetadata = inside
		delete(want, "metadata")
	}
	var gotMetadata any
	if backMetadata != nil {
		gotMetadata = parsed(t, string(backMetadata))
	}
	if diff := cmp.Diff(any(want), parsed(t, string(back))) + cmp.Diff(wantMetadata, gotMetadata); diff != "" {
		t.Errorf("%s with %s came back otherwise: %s", payloadText, metadata, diff)
	}
}

// Random payloads of every kind, with random members beyond the known ones.
func TestMappingKeepsEveryPayload(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		text := randomPayload(dice)
		if err := payloadSchema.Validate("payload", []byte(text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		var metadata api.Object
		if v := parsed(t, text).(map[string]any); dice.IntN(2) == 0 && v["metadata"] == nil {
			metadata = api.Object(randomObject(dice))
		}
		keepsValue(t, text, metadata)
	}
}

// randomPayload adds members to a good payload and to the parts in it.
func randomPayload(dice *rand.Rand) string {
	var v map[string]any
	if err := json.Unmarshal([]byte(goodPayloads[dice.IntN(len(goodPayloads))]), &v); err != nil {
		panic(err)
	}
	decorate(dice, v)
	if items, ok := v["items"].([]any); ok {
		for _, it := range items {
			if it, ok := it.(map[string]any); ok {
				decorate(dice, it)
			}
		}
	}
	text, _ := json.Marshal(v)
	return string(text)
}

func decorate(dice *rand.Rand, v map[string]any) {
	for range dice.IntN(3) {
		name := []string{"metadata", "payload", "data", "types", fmt.Sprint(dice.IntN(100)), "é\"\\"}[dice.IntN(6)]
		var value any
		_ = json.Unmarshal([]byte(randomObject(dice)), &value)
		v[name] = []any{value, "text", nil, 1.5, []any{value}}[dice.IntN(5)]
	}
}

func randomObject(dice *rand.Rand) string {
	return []string{`{}`, `{"type":"text"}`, `{"a":{"b":[1,2,{"c":null}]}}`, `{"payload":{"type":"x"},"metadata":{}}`}[dice.IntN(4)]
}

// FuzzPayload: whatever is accepted keeps its JSON value on the way to the bot's form and back.
func FuzzPayload(f *testing.F) {
	for _, text := range goodPayloads {
		f.Add(text, `{"a":1}`)
		f.Add(text, "")
	}
	f.Add(`{"type":"text","text":"a","metadata":{"b":[]}}`, "")
	f.Add(`{"t\u0079pe":"bloc","items":[{"\u0074ype":"text","text":"\u0061"}]}`, "{}")
	schema := api.SchemaOf[createMessageInput]()
	f.Fuzz(func(t *testing.T, text, metadata string) {
		body := `{"conversationId":"c","payload":` + text + `}`
		var given api.Object
		if metadata != "" {
			given = api.Object(metadata)
			body = `{"conversationId":"c","payload":` + text + `,"metadata":` + metadata + `}`
		}
		if schema.Validate("createMessage", []byte(body)) != nil {
			return
		}
		in := createMessageInput{Payload: asPayload(text), Metadata: given}
		if json.Valid([]byte(text)) && (given == nil || json.Valid(given)) && in.Check() == nil {
			keepsValue(t, text, given)
		}
	})
}

func asPayload(text string) payload { return payload{api.Raw(text)} }
