package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"parley/internal/sqldb"
)

// Filling past the server: copies of what it has made itself, each with an id
// and a time of its own. They are as long as the originals and in the same
// indexes, and come at the rate of the database instead of that of requests.

// pattern is a conversation that was made through the server: a guest's, with a
// message of his and one of a bot that takes its events and says nothing more.
type pattern struct {
	bot          *bot
	hears        *replier
	guest        guest
	asked, reply string // ids of the messages
	next         atomic.Int64
}

// newPattern makes a bot and a conversation to copy.
func newPattern(ctx context.Context, b *bench, p *parley) (*pattern, error) {
	hears, err := newSilent(ctx, b, p)
	if err != nil {
		return nil, err
	}
	made := hears.self
	t := &pattern{bot: made, hears: hears}
	if t.guest, err = made.guest(ctx); err != nil {
		return nil, err
	}
	type sent struct{ Message struct{ ID string } }
	var asked, replied sent
	text := map[string]any{"userId": t.guest.user, "conversationId": t.guest.conversation, "type": "text", "payload": map[string]any{"text": spoken}, "tags": struct{}{}}
	if err := p.call(ctx, "POST", "/v1/chat/messages", made.asIntegration(), text, &asked); err != nil {
		return nil, err
	}
	text["userId"] = made.id
	err = p.call(ctx, "POST", "/v1/chat/messages", made.asBot(), text, &replied)
	t.asked, t.reply = asked.Message.ID, replied.Message.ID
	return t, errors.Join(err, hears.caughtUp(ctx, 1))
}

// lane is where the events of the pattern are.
func (t *pattern) lane() string { return t.laneOf(t.guest.conversation) }

func (t *pattern) laneOf(conversation string) string {
	return "bot:" + t.bot.id + ":conv:" + conversation
}

// copyAt is the time of the i-th copy, older than anything else.
const copyAt = "1700000000000 + i * 10"

// firstCopy makes numbers of 16 digits: with ten before them they are as long as an id.
const firstCopy = 1_000_000_000_000_000

// copyID is the SQL of the i-th id with a prefix; two series of them differ.
func copyID(prefix string, series int) string {
	return fmt.Sprintf("'%s_01M%d000000' || CAST(%d + i AS TEXT)", prefix, series, firstCopy)
}

// copiedID is the id that copyID makes.
func copiedID(prefix string, i int) string {
	return fmt.Sprintf("%s_01M0000000%d", prefix, firstCopy+i)
}

// statement is SQL with its arguments.
type statement struct {
	text string
	args []any
}

// seedChunk is how many copies go in one transaction: some seconds of work.
const seedChunk = 10_000

// copies runs statements for the numbers from..to-1, a chunk in each transaction.
// A statement begins with INSERT and goes on with the table n of the numbers i.
func copies(ctx context.Context, db *sqldb.DB, from, to int, statements ...func(n string) statement) error {
	for ; from < to; from += seedChunk {
		n := fmt.Sprintf(" WITH RECURSIVE n (i) AS (SELECT CAST(%d AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT ", from, min(from+seedChunk, to)-1)
		err := db.Write(ctx, func(tx *sqldb.Tx) error {
			for _, make := range statements {
				s := make(n)
				if _, err := tx.Exec(s.text, s.args...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// conversations copies the whole conversation: user, tags, participant, head,
// both messages, the event as if it had been handled, and its lane.
func (t *pattern) conversations(ctx context.Context, db *sqldb.DB, from, to int) error {
	user, conv := copyID("user", 0), copyID("conv", 0)
	lane := "'" + t.laneOf("") + "' || " + conv
	entity := func(table, columns, values, key, id string) func(string) statement {
		return func(n string) statement {
			return statement{"INSERT INTO " + table + " (" + columns + ")" + n + values + " FROM " + table + ", n WHERE " + key + " = $1", []any{id}}
		}
	}
	return copies(ctx, db, from, to,
		entity("users", "id, bot_id, installation_id, name, picture_url, tags, created_at, updated_at",
			user+", bot_id, installation_id, name, picture_url, tags, "+copyAt+", "+copyAt, "id", t.guest.user),
		entity("conversations", "id, bot_id, installation_id, channel, tags, created_at, updated_at",
			conv+", bot_id, installation_id, channel, tags, "+copyAt+", "+copyAt, "id", t.guest.conversation),
		entity("tags", "bot_id, kind, owner, key, value, created_at, entity",
			"bot_id, kind, owner, key, "+user+", "+copyAt+", "+conv, "entity", t.guest.conversation),
		entity("participants", "conversation_id, user_id, bot_id, created_at",
			conv+", "+user+", bot_id, "+copyAt, "conversation_id", t.guest.conversation),
		entity("conversation_heads", "conversation_id, bot_id, installation_id, message_seq, signal_pos, last_at",
			conv+", bot_id, installation_id, message_seq, signal_pos, "+copyAt, "conversation_id", t.guest.conversation),
		t.message(t.asked, copyID("msg", 0), conv, user, "seq", ""),
		t.message(t.reply, copyID("msg", 1), conv, "user_id", "seq", ""),
		t.event(conv, user, lane, "lane_seq", ""),
		entity("lanes", "key, endpoint, seq, done, ephemeral, due, lease_until, owner",
			lane+", endpoint, seq, seq, ephemeral, 9223372036854775807, 0, ''", "key", t.lane()),
	)
}

// messages makes the conversation itself longer, as an import does: by the
// messages from..to-1, each second one the bot's, older than those it has.
func (t *pattern) messages(ctx context.Context, db *sqldb.DB, from, to int) error {
	const before = "i - 1000000000" // in the lane, where no event waits any more
	return copies(ctx, db, from, to,
		t.message(t.asked, copyID("msg", 0), "conversation_id", "user_id", "0", " AND i % 2 = 1"),
		t.message(t.reply, copyID("msg", 0), "conversation_id", "user_id", "0", " AND i % 2 = 0"),
		t.event("conversation_id", "user_id", "lane", before, " AND i % 2 = 1"),
	)
}

func (t *pattern) message(original, id, conv, user, seq, which string) func(n string) statement {
	return func(n string) statement {
		return statement{`INSERT INTO messages (bot_id, id, installation_id, conversation_id, user_id, direction, type, payload, tags, origin, seq, signal_pos, created_at, updated_at)` + n +
			`bot_id, ` + id + `, installation_id, ` + conv + `, ` + user + `, direction, type, payload, tags, origin, ` + seq + `, ` + seq + `, ` + copyAt + `, ` + copyAt + `
			FROM messages, n WHERE bot_id = $1 AND id = $2` + which, []any{t.bot.id, original}}
	}
}

// event copies the event of the first message; it tells of the copied one.
func (t *pattern) event(conv, user, lane, seq, which string) func(n string) statement {
	return func(n string) statement {
		return statement{`INSERT INTO events (bot_id, id, installation_id, type, payload, conversation_id, user_id, message_id, workflow_id, status, failure_reason, lane, lane_seq, attempts, created_at)` + n +
			`bot_id, ` + copyID("evt", 0) + `, installation_id, type, payload, ` + conv + `, ` + user + `, ` + copyID("msg", 0) + `, workflow_id, 'processed', '', ` + lane + `, ` + seq + `, 1, ` + copyAt + `
			FROM events, n WHERE lane = $1 AND lane_seq = 1` + which, []any{t.lane()}}
	}
}
