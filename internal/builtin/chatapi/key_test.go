package chatapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// forged makes a token by hand, so that it can be a wrong one.
func forged(header string, claims map[string]any, secret string) string {
	body, _ := json.Marshal(claims)
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(body)
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

func TestWrongKeysOpenNothing(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		gone := r.join("gone")
		gone.ok("DELETE", "/users/me", "")
		door := r.town.doors[chatA.webhook]
		own := string(r.chat.signingKey(&door))
		claims := func(more ...any) map[string]any {
			m := map[string]any{"id": "ann"}
			for i := 0; i < len(more); i += 2 {
				m[more[i].(string)] = more[i+1]
			}
			return m
		}
		now := r.clock.now().Unix()
		parts := strings.Split(ann.key, ".")
		none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
		for name, key := range map[string]string{
			"missing":              "",
			"no token":             "hello",
			"flipped signature":    parts[0] + "." + parts[1] + "." + flipped(parts[2]),
			"other claims":         parts[0] + "." + strings.Split(r.sign(chatA, "eve").key, ".")[1] + "." + parts[2],
			"no signature":         parts[0] + "." + parts[1] + ".",
			"alg none":             none + "." + parts[1] + ".",
			"alg none, signed":     none + "." + parts[1] + "." + parts[2],
			"alg RS256":            forged(`{"alg":"RS256","typ":"JWT"}`, claims(), own),
			"alg HS512":            forged(`{"alg":"HS512","typ":"JWT"}`, claims(), own),
			"alg in lower case":    forged(`{"alg":"hs256","typ":"JWT"}`, claims(), own),
			"no alg":               forged(`{"typ":"JWT"}`, claims(), own),
			"critical extension":   forged(`{"alg":"HS256","crit":["exp"]}`, claims(), own),
			"empty secret":         forged(hs256, claims(), ""),
			"another secret":       forged(hs256, claims(), keyOfB),
			"expired":              forged(hs256, claims("exp", now-1), own),
			"expires now":          forged(hs256, claims("exp", now), own),
			"not valid yet":        forged(hs256, claims("nbf", now+60), own),
			"exp is a text":        forged(hs256, claims("exp", "tomorrow"), own),
			"no id":                forged(hs256, map[string]any{"sub": "ann"}, own),
			"id is a number":       forged(hs256, claims("id", 7), own),
			"id is empty":          forged(hs256, claims("id", ""), own),
			"id is null":           forged(hs256, claims("id", nil), own),
			"id with a line break": forged(hs256, claims("id", "ann\n"), own),
			"over-long":            forged(hs256, claims("fill", strings.Repeat("x", 5000)), own),
			"over-long id":         forged(hs256, claims("id", strings.Repeat("x", 201)), own),
			"another installation": r.sign(chatB, "ann").key,
			"a deleted user":       gone.key,
			"an unknown user":      r.sign(chatA, "nobody").key,
			"an unknown real user": r.sign(chatA, id.New("user")).key,
			"the bot":              r.sign(chatA, chatA.bot).key,
			"a bearer token":       "Bearer " + ann.key,
		} {
			p := &person{r, chatA, "", key}
			for _, path := range []string{"/users/me", "/conversations", "/conversations/x/listen"} {
				if status, out := p.do("GET", path, ""); status != http.StatusUnauthorized || out["type"] != "Unauthorized" {
					r.Errorf("%s: GET %s answered %d %v", name, path, status, out)
				}
			}
			if status, _ := p.do("POST", "/conversations", "{}"); status != http.StatusUnauthorized {
				r.Errorf("%s: POST /conversations answered %d", name, status)
			}
		}
		for name, key := range map[string]string{
			"without iat":   forged(hs256, claims(), own),
			"with a future": forged(hs256, claims("exp", now+60, "nbf", now-60), own),
			"with a claim":  forged(hs256, claims("name", "Ann"), own),
		} {
			p := &person{r, chatA, "", key}
			if got := field(p.ok("GET", "/users/me", ""), "user", "id"); got != "ann" {
				r.Errorf("%s: the user is %q", name, got)
			}
		}
		r.clock.pass(time.Minute)
		if status, _ := (&person{r, chatA, "", forged(hs256, claims("exp", now+60), own)}).do("GET", "/users/me", ""); status != http.StatusUnauthorized {
			r.Errorf("a key that expired meanwhile answers %d", status)
		}
		if n := len(r.runtime(chatA, "GET", "/conversations", "")["conversations"].([]any)); n != 0 {
			r.Errorf("%d conversations were made", n)
		}
	})
}

func flipped(signature string) string {
	b := []byte(signature)
	if b[3] == 'A' {
		b[3] = 'B'
	} else {
		b[3] = 'A'
	}
	return string(b)
}

func TestAnInstallationWithAnEncryptionKey(t *testing.T) {
	each(t, func(r *rig) {
		nobody := &person{rig: r, at: chatB}
		nobody.refused(fault.Unauthorized, "createUser is not available", "POST", "/users", `{"id":"bob"}`)
		bob := &person{r, chatB, "bob", forged(hs256, map[string]any{"id": "bob"}, keyOfB)}
		bob.refused(fault.Unauthorized, "getOrCreateUser creates it", "GET", "/users/me", "")
		status, made := bob.do("POST", "/users/get-or-create", `{"name":"Bob"}`)
		golden(r, "getOrCreateUser", made, `{"user":{"id":"bob","name":"Bob","createdAt":"TIME","updatedAt":"TIME"}}`)
		if status != http.StatusCreated {
			r.Errorf("getOrCreateUser answered %d", status)
		}
		if again := bob.ok("POST", "/users/get-or-create", `{}`); field(again, "user", "name") != "Bob" {
			r.Errorf("the second call answered %v", again)
		}
		bob.opens("room")
		// A deleted user comes back as a new one: who signs keys decides who there is.
		bob.ok("DELETE", "/users/me", "")
		golden(r, "the new user", bob.ok("POST", "/users/get-or-create", "{}"), `{"user":{"id":"bob","createdAt":"TIME","updatedAt":"TIME"}}`)
		bob.refused(fault.Forbidden, "", "GET", "/conversations/room", "")
	})
}

func TestIDsInSignedKeys(t *testing.T) {
	each(t, func(r *rig) {
		for _, name := range []string{"a", id.UUID(), "bob@example.org", "bob.o'neil+chat@mail.example.org", strings.Repeat("x", 70), strings.Repeat("x", 188) + "@example.org"} {
			p := r.joinB(name)
			if got := field(p.ok("GET", "/users/me", ""), "user", "id"); got != name {
				r.Errorf("the user %q is called %q", name, got)
			}
			room := p.opens("")
			if got := p.says(room, "hi")["userId"]; got != name {
				r.Errorf("the message of %q is by %q", name, got)
			}
			if got := field(p.ok("GET", "/conversations/"+room+"/participants/"+segment(name), ""), "participant", "id"); got != name {
				r.Errorf("the participant %q is called %q", name, got)
			}
		}
		for _, name := range []string{"no+plus", "no space", "é", strings.Repeat("x", 71), "@", "a@", "@b", "a@b@c", "a b@c", "a@b/c"} {
			r.sign(chatB, name).refused(fault.InvalidPayload, "the id in x-user-key", "POST", "/users/get-or-create", "{}")
		}
		for _, name := range []string{id.New("user"), id.New("conv"), chatB.bot, chatA.bot} {
			r.sign(chatB, name).refused(fault.Unauthorized, "doesn't exist", "POST", "/users/get-or-create", "{}")
		}
	})
}

// A UUID that nobody chose may be a real id, of a row that came from elsewhere.
func TestAnUnknownChosenIDFallsThroughToARealOne(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("")
		old := r.sign(chatA, id.UUID())
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE users SET id = $1 WHERE id = $2", old.id, ann.id)
			return err
		})
		if got := field(old.ok("GET", "/users/me", ""), "user", "id"); got != old.id {
			r.Errorf("the user is %q, want %q", got, old.id)
		}
		if got := field(old.ok("POST", "/users/get-or-create", "{}"), "user", "id"); got != old.id {
			r.Errorf("getOrCreateUser found %q, want %q", got, old.id)
		}
		old.refused(fault.AlreadyExists, "", "POST", "/users", fmt.Sprintf(`{"id":%q}`, old.id))
		room, oldRoom := old.opens(""), fmt.Sprintf(`{"id":%q}`, id.UUID())
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE conversations SET id = $1 WHERE id = $2", field(parsed(r, oldRoom).(map[string]any), "id"), room)
			return err
		})
		golden(r, "getOrCreateConversation", old.ok("POST", "/conversations/get-or-create", oldRoom)["conversation"].(map[string]any)["id"], oldRoom[6:len(oldRoom)-1])
		old.refused(fault.AlreadyExists, "", "POST", "/conversations", oldRoom)
	})
}

// The key may stand in the query where a header cannot be sent, and only there.
func TestTheKeyInTheQuery(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		ann.opens("room/listen")
		door, query := "/"+chatA.webhook, "?x-user-key="+url.QueryEscape(ann.key)
		for path, want := range map[string]int{
			"/conversations/room/listen" + query + "&after=x":  http.StatusBadRequest, // admitted, then the position
			"/conversations/room/listen/" + query + "&after=x": http.StatusBadRequest,
			"/conversations/none/listen" + query:               http.StatusNotFound,
			"/conversations/room" + query:                      http.StatusUnauthorized,
			"/conversations/room%2Flisten" + query:             http.StatusUnauthorized,
			"/users/me" + query:                                http.StatusUnauthorized,
			"/conversations/room/listen?x-user-key=x":          http.StatusUnauthorized,
		} {
			if status, out := r.request("GET", door+path, ""); status != want {
				r.Errorf("GET %s answered %d %v, want %d", strings.Split(path, "?")[0], status, out, want)
			}
		}
	})
}

func TestDoors(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		for _, webhook := range []string{id.UUID(), hookA.webhook, "x"} {
			status, out := r.request("POST", "/"+webhook+"/users", "{}")
			if status != http.StatusNotFound || !strings.HasPrefix(fmt.Sprint(out["message"]), "[Webhook Handler]") {
				r.Errorf("the door %q answered %d %v", webhook, status, out)
			}
		}
		r.town.change(chatA, func(in *Installation) { in.Enabled = false })
		ann.refused(fault.Forbidden, "disabled", "GET", "/users/me", "")
		ann.refused(fault.Forbidden, "disabled", "POST", "/users", "{}")
		r.town.change(chatA, func(in *Installation) { in.Enabled, in.Removed = true, true })
		ann.refused(fault.ResourceNotFound, "[Webhook Handler]", "GET", "/users/me", "")
		r.town.change(chatA, func(in *Installation) { in.Removed = false })
		ann.ok("GET", "/users/me", "")
		// Another key from now on: the ones of before are worth nothing.
		r.town.change(chatA, func(in *Installation) { in.EncryptionKey = "new" })
		ann.refused(fault.Unauthorized, "not valid here", "GET", "/users/me", "")
	})
}

func TestSigningKey(t *testing.T) {
	t.Parallel()
	box := must(auth.NewBox(make([]byte, 32)))
	if got := SigningKey(box, "w", "given"); got != "given" {
		t.Errorf("the encryption key is not what signs: %q", got)
	}
	if a, b := SigningKey(box, "w1", ""), SigningKey(box, "w2", ""); a == b || len(a) != 64 || a != SigningKey(box, "w1", "") {
		t.Errorf("the own keys are %q and %q", a, b)
	}
}

// FuzzUserKey: whatever is sent as a key, the door answers as a door does.
func FuzzUserKey(f *testing.F) {
	r := newRig(f, sqliteDB(f))
	ann := r.join("ann")
	for _, seed := range []string{"", "a", "a.b.c", ann.key, ann.key + ".", r.sign(chatA, "bob").key, forged(hs256, map[string]any{"id": "x", "exp": 1e300}, keyOfB)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		status, out := r.ask("GET", "/"+chatA.webhook+"/users/me", "", key)
		if status != http.StatusUnauthorized && !(status == http.StatusOK && key == ann.key) {
			t.Errorf("%q answered %d %s", key, status, out)
		}
	})
}

// FuzzSignedID: whatever id a well-signed key names, no answer is a failure of
// the server, and a user that is made goes by that id.
func FuzzSignedID(f *testing.F) {
	r := newRig(f, sqliteDB(f))
	for _, seed := range []string{"a", "bob@example.org", id.New("user"), id.UUID(), chatA.bot, "\x00", "é", `a\b/c`, "%2F", "..", "\u202e", strings.Repeat("x", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		key, users := r.sign(chatB, name).key, "/"+chatB.webhook+"/users"
		status, out := r.ask("POST", users+"/get-or-create", "{}", key)
		switch status {
		case http.StatusBadRequest, http.StatusUnauthorized:
			return
		case http.StatusCreated:
		default:
			t.Fatalf("a key for %q answered %d %s", name, status, out)
		}
		if got := field(parsed(t, string(out)).(map[string]any), "user", "id"); got != name {
			t.Errorf("the user of the key for %q is called %q", name, got)
		}
		if status, out := r.ask("DELETE", users+"/me", "{}", key); status != http.StatusOK {
			t.Errorf("deleting %q answered %d %s", name, status, out)
		}
	})
}
