package chaos

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/parleytest"
	"parley/internal/sqldb"
)

// TestOrder has eight people write into the same conversations while servers are
// killed. A conversation has one order, whoever shows it: its list, its signals,
// the numbers of its messages, and the bot, which fails now and then. In it
// nothing is missing or twice, and what was acknowledged before something else
// was sent is before it.
func TestOrder(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		o := newOrder(t, s)
		n, many := &toll{}, rounds(8, 1000)
		o.run(n, many)
		again := o.bot.again(t, n.killed)
		o.numbered()
		if n.kills == 0 {
			t.Error("no server was killed: the conversations were over too early")
		}
		record(t, "order, "+s.Name, fmt.Sprintf("%v; %d messages in %d conversations, each from %d people: list, signals, numbers and bot agree, 0 missing, 0 twice; %d events came to the bot again after it had accepted them, each cut off by a kill and with its id",
			n, many*people*o.each, many, people, again))
	})
}

const people = 8

// order is people, a bot and what they have said to it.
type order struct {
	*plain
	s      *parleytest.Setup
	bot    *recorder
	door   string
	people []person
	dice   *rand.Rand

	each    int           // messages of each person in each conversation
	atOnce  int           // conversations
	pause   time.Duration // between two messages of a person, at most
	between time.Duration // kills

	mu     sync.Mutex
	listed map[string][]string // by conversation, the ids of its messages
}

type person struct{ id, key string }

func newOrder(t *testing.T, s *parleytest.Setup) *order {
	o := &order{s: s, each: 6, atOnce: 8, pause: 600 * time.Millisecond, between: 600 * time.Millisecond, listed: map[string][]string{}}
	refuse := uint32(25)
	if long() {
		o.each, o.atOnce, o.pause, o.between, refuse = 25, 32, time.Second, 4*time.Second, 100
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	o.dice = rand.New(rand.NewPCG(seed, 1))
	o.bot = newRecorder(t, refuse)
	o.plain, o.door = newChatBot(t, s, o.bot.url)
	for range people {
		var made struct {
			User struct{ ID string }
			Key  string
		}
		if _, err := call(t.Context(), "POST", o.door+"/users", nil, object{}, &made); err != nil {
			t.Fatal(err)
		}
		o.people = append(o.people, person{made.User.ID, made.Key})
	}
	return o
}

// newChatBot makes a bot that lives at a URL, "" for nowhere, and has the chat
// installed, in whose name the program may act.
func newChatBot(t *testing.T, s *parleytest.Setup, url string) (p *plain, door string) {
	t.Helper()
	p = &plain{t: t}
	_, p.api = s.Settings()
	var hub struct{ Integration struct{ ID string } }
	p.must("GET", "/v1/admin/hub/integrations/chat/latest", nil, nil, &hub)
	var made struct {
		Bot struct {
			ID           string
			Integrations map[string]struct{ WebhookID string }
		}
	}
	bot := object{"name": "recorder"}
	if url != "" {
		bot["url"] = url
	}
	p.must("POST", "/v1/admin/bots", nil, bot, &made)
	p.botID, p.id = made.Bot.ID, hub.Integration.ID
	p.must("PUT", "/v1/admin/bots/"+p.botID, nil, object{"integrations": object{
		"chat": object{"integrationId": p.id, "enabled": true, "configuration": object{}},
	}}, &made)
	return p, p.api.APIURL + "/" + made.Bot.Integrations["chat"].WebhookID
}

// run has the people talk, a number of conversations at a time, while servers die.
func (o *order) run(n *toll, many int) {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.t.Context())
	names := make(chan int)
	done := make(chan struct{})
	var talking, all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range o.atOnce {
		talking.Go(func() {
			for n := range names {
				o.converse(ctx, n)
			}
		})
	}
	all.Go(func() {
		defer close(done)
		defer talking.Wait()
		defer close(names)
		for i := range many {
			select {
			case names <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	killUntil(o.t, o.s, n, o.dice, o.between, done)
}

// exchange is a conversation, heard by the one who began it.
type exchange struct {
	*talk
	mu   sync.Mutex
	said map[string]said // by text
}

// said is a message that was acknowledged.
type said struct {
	id          string
	sent, known time.Time // acknowledged
}

// converse is one conversation from its beginning until it is known to be right.
func (o *order) converse(ctx context.Context, n int) {
	c, err := o.begin(ctx, n)
	if err != nil {
		o.t.Errorf("conversation %d: %v", n, err)
		return
	}
	hear, deaf := context.WithCancel(ctx)
	var listening, writing sync.WaitGroup
	defer listening.Wait()
	defer deaf()
	listening.Go(func() { c.listen(hear) })
	for from := range o.people {
		writing.Go(func() { o.write(ctx, c, from) })
	}
	writing.Wait()
	o.settled(ctx, c)
}

func (o *order) begin(ctx context.Context, n int) (*exchange, error) {
	c := &exchange{talk: &talk{name: fmt.Sprintf("c%04d", n), base: o.door, key: o.people[0].key, last: "0"}, said: map[string]said{}}
	var made struct{ Conversation struct{ ID string } }
	if _, err := insist(ctx, func(ctx context.Context) (int, error) {
		return c.call(ctx, "POST", "/conversations", "begin-"+c.name, object{}, &made)
	}); err != nil {
		return nil, err
	}
	c.id = made.Conversation.ID
	for _, p := range o.people[1:] {
		if _, err := insist(ctx, func(ctx context.Context) (int, error) {
			return c.call(ctx, "POST", "/conversations/"+c.id+"/participants", "", object{"userId": p.id}, &struct{}{})
		}); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// write is one person's part: the next message is sent when the one before is
// acknowledged. Two of the people are behind an integration, which uses the
// Runtime API.
func (o *order) write(ctx context.Context, c *exchange, from int) {
	p := o.people[from]
	for n := range o.each {
		<-time.After(rand.N(o.pause))
		text := fmt.Sprintf("%s.%d.%02d", c.name, from, n)
		path, header := o.door+"/messages", map[string]string{"x-user-key": p.key}
		in := object{"conversationId": c.id, "payload": payload{"text", text}}
		if from%4 == 3 {
			path, header = o.api.APIURL+"/v1/chat/messages", o.who(map[string]string{"x-bot-id": o.botID, "x-integration-id": o.id})
			in["userId"], in["type"], in["tags"], in["payload"] = p.id, "text", object{}, object{"text": text}
		}
		header["idempotency-key"] = "order-" + text
		var out struct{ Message struct{ ID string } }
		sent := time.Now()
		if _, err := insist(ctx, func(ctx context.Context) (int, error) { return call(ctx, "POST", path, header, in, &out) }); err != nil {
			o.t.Errorf("%s was never acknowledged: %v", text, err)
			return
		}
		c.mu.Lock()
		c.said[text] = said{out.Message.ID, sent, time.Now()}
		c.mu.Unlock()
	}
}

// settled waits until listener and bot have heard as much as was said, and compares.
func (o *order) settled(ctx context.Context, c *exchange) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(c.sofar()) < len(c.said) || len(o.bot.heard(c.id)) < len(c.said) {
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		o.t.Errorf("%s: of %d messages the listener heard %d, the bot %d", c.name, len(c.said), len(c.sofar()), len(o.bot.heard(c.id)))
		return
	}
	var all []message
	if _, err := insist(ctx, func(ctx context.Context) (_ int, err error) {
		all, err = c.messages(ctx)
		return 0, err
	}); err != nil {
		o.t.Errorf("%s: %v", c.name, err)
		return
	}
	o.compare(c, all)
}

func (o *order) compare(c *exchange, all []message) {
	var ids []string
	for _, m := range all {
		ids = append(ids, m.ID)
		if m.ID != c.said[m.Payload.Text].id {
			o.t.Errorf("%s: %s is listed as %s and was acknowledged as %q", c.name, m.Payload.Text, m.ID, c.said[m.Payload.Text].id)
		}
	}
	if len(ids) != len(c.said) {
		o.t.Errorf("%s: %d messages were acknowledged, %d are listed", c.name, len(c.said), len(ids))
	}
	for who, got := range map[string][]string{"the listener": c.sofar(), "the bot": o.bot.heard(c.id)} {
		if !slices.Equal(got, ids) {
			o.t.Errorf("%s: %s heard another order than that of the list: %s", c.name, who, firstDifference(ids, got))
		}
	}
	if why := c.disorder(all); why != "" {
		o.t.Errorf("%s: %s", c.name, why)
	}
	if why := gap(c.at); why != "" {
		o.t.Errorf("%s: %s", c.name, why)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.listed[c.id] = ids
}

// disorder says what is wrong with the order of a list, oldest first: by time and
// id, and against what was known when a message was sent.
func (c *exchange) disorder(all []message) string {
	var earliest said // acknowledged, of the messages behind
	for i, m := range slices.Backward(all) {
		if i > 0 && m.CreatedAt.Sub(all[i-1].CreatedAt) < time.Millisecond {
			return fmt.Sprintf("message %d was created at %v, the one before at %v", i, m.CreatedAt, all[i-1].CreatedAt)
		}
		this := c.said[m.Payload.Text]
		if !earliest.known.IsZero() && earliest.known.Before(this.sent) {
			return fmt.Sprintf("message %s is before %s, which was acknowledged %v before it was sent", this.id, earliest.id, this.sent.Sub(earliest.known))
		}
		if earliest.known.IsZero() || this.known.Before(earliest.known) {
			earliest = this
		}
	}
	if !slices.IsSortedFunc(all, func(a, b message) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID)) }) {
		return "the list is not by time and id"
	}
	return ""
}

// gap says where positions do not go 1, 2, 3, ….
func gap(at []string) string {
	for i, pos := range at {
		if pos != strconv.Itoa(i+1) {
			return fmt.Sprintf("signal %d is at position %s", i+1, pos)
		}
	}
	return ""
}

// numbered looks the numbers of the messages up in the database, where alone they are.
func (o *order) numbered() {
	o.t.Helper()
	db, err := sqldb.Look(o.t.Context(), sqldb.Options{URL: databaseOf(o.s)})
	if err != nil {
		o.t.Fatal(err)
	}
	defer db.Close()
	for conversation, ids := range o.listed {
		rows, err := db.Reader(o.t.Context()).Query("SELECT id, seq, signal_pos FROM messages WHERE bot_id = $1 AND conversation_id = $2 ORDER BY seq", o.botID, conversation)
		if err != nil {
			o.t.Fatal(err)
		}
		var got []string
		var seq, pos, last int64
		for rows.Next() {
			var id string
			if err := rows.Scan(&id, &seq, &pos); err != nil {
				o.t.Fatal(err)
			}
			if got = append(got, id); seq != int64(len(got)) || pos <= last {
				o.t.Errorf("conversation %s: message %d has number %d and position %d after %d", conversation, len(got), seq, pos, last)
			}
			last = pos
		}
		if err := rows.Close(); err != nil {
			o.t.Fatal(err)
		}
		if !slices.Equal(got, ids) {
			o.t.Errorf("conversation %s: the numbers say another order than the list: %s", conversation, firstDifference(ids, got))
		}
	}
}

// databaseOf is where the servers of a setup keep their data.
func databaseOf(s *parleytest.Setup) string {
	database := ""
	for _, v := range s.Env {
		if url, ok := strings.CutPrefix(v, "PARLEY_DATABASE_URL="); ok {
			database = url // the last one counts
		}
	}
	return cmp.Or(database, (&url.URL{Scheme: "sqlite", Path: filepath.Join(s.Data, "parley.db")}).String())
}
