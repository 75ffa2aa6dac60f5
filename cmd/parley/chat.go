package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"parley/internal/auth"
)

const (
	exitBotFailed = 3
	exitNoAnswer  = 4

	// How often a bot is asked about whether it is done, and how long it is
	// listened to where nobody can be asked.
	statusEvery = 100 * time.Millisecond
	quietAfter  = 2 * time.Second
)

type chatOptions struct {
	botID, door, conversation string
	timeout                   time.Duration
	json                      bool
}

func (p *program) chat() *cobra.Command {
	var o chatOptions
	c := &cobra.Command{
		Use:   "chat TEXT",
		Short: "Say something to a bot and print its answers",
		Long: `Say something to a bot over the Chat API and print its answers as they come.
It ends when the bot has handled the message.

Each call begins a new conversation unless --conversation names one: any name
of yours, or the id of an earlier one.

Exit status: 0 the bot answered, 1 something went wrong here, 2 wrong usage,
3 the bot failed, 4 the bot did not answer.

Without --bot and --data, PARLEY_CHAT_API_URL may name a chat on any machine,
and PARLEY_CHAT_ENCRYPTION_KEY the key that signs its users; parley env prints
both. The end is then guessed: two quiet seconds after an answer.`,
		Example: `  parley chat "hello"
  parley chat --bot bot_01… --conversation demo "and again"`,
		Args: oneArg("text"),
	}
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.Flags().StringVar(&o.botID, "bot", "", "`ID` of the bot (default: the echo bot of parley dev)")
	c.Flags().StringVar(&o.door, "chat-url", "", "`URL` of the chat, instead of a data directory (PARLEY_CHAT_API_URL)")
	c.Flags().StringVar(&o.conversation, "conversation", "", "`NAME` of the conversation to go on with")
	c.Flags().DurationVar(&o.timeout, "timeout", 60*time.Second, "how long to wait for the bot")
	c.Flags().BoolVar(&o.json, "json", false, "print each answer as a line of JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if o.door == "" && o.botID == "" && !cmd.Flags().Changed("data") {
			o.door = p.getenv("PARLEY_CHAT_API_URL")
		}
		if o.door != "" {
			return p.talk(cmd.Context(), &talk{chatOptions: o, text: args[0], door: newClient(o.door, ""), key: p.getenv("PARLEY_CHAT_ENCRYPTION_KEY")})
		}
		return p.connect(cmd.Context(), cfg, false, func(ctx context.Context, conn *connection) error {
			e, err := conn.environment(ctx, cfg, o.botID)
			if err != nil {
				return err
			}
			switch {
			case !conn.running:
				return fmt.Errorf("no server uses %s; start one with parley dev --data %s", cfg.Data, cfg.Data)
			case e.ChatURL == "":
				return fmt.Errorf("bot %s has no chat: install the integration chat in it, as docs/guide/bots.md shows", e.BotID)
			}
			door := newClient(conn.base+e.ChatURL[len(e.APIURL):], "")
			return p.talk(ctx, &talk{chatOptions: o, text: args[0], door: door, key: e.ChatKey, runtime: conn.with("x-bot-id", e.BotID)})
		})
	}
	return c
}

// talk is one thing said to a bot, and what came of it.
type talk struct {
	chatOptions
	text    string
	door    *client
	key     string  // signs the user's key; "" leaves that to the server
	runtime *client // asks what became of the event; nil where that is not possible

	userID         string
	conversationID string
	messageID      string
	sentAt         string
	printed        map[string]bool
}

type chatMessage struct {
	ID        string         `json:"id"`
	CreatedAt string         `json:"createdAt"`
	UserID    string         `json:"userId"`
	Payload   map[string]any `json:"payload"`
	Metadata  map[string]any `json:"metadata,omitempty"`
}

// errDone ends the stream once the bot has handled the message.
var errDone = errors.New("done")

func (p *program) talk(ctx context.Context, t *talk) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, &exitError{exitNoAnswer, fmt.Errorf("the bot did not answer within %s", t.timeout)})
	defer cancel()
	t.printed = map[string]bool{}
	if err := t.enter(ctx); err != nil {
		return orCause(ctx, err)
	}
	// Listening begins before the message is sent, so that nothing is missed.
	stream, err := t.door.send(ctx, "GET", "/conversations/"+url.PathEscape(t.conversationID)+"/listen", nil)
	if err != nil {
		return orCause(ctx, err)
	}
	defer stream.Body.Close()
	if err := t.say(ctx); err != nil {
		return orCause(ctx, err)
	}
	heard := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.listen(t, stream, heard) })
	g.Go(func() error { return cmp.Or(t.awaitEnd(ctx, heard), errDone) })
	defer context.AfterFunc(ctx, func() { _ = stream.Body.Close() })() // whoever ends first ends the other
	if err := g.Wait(); !errors.Is(err, errDone) {
		return orCause(ctx, err)
	}
	return p.rest(ctx, t)
}

// orCause prefers the reason why ctx ended to the error this led to.
func orCause(ctx context.Context, err error) error {
	if cause, ok := errors.AsType[*exitError](context.Cause(ctx)); ok {
		return cause
	}
	return err
}

// terminalUser is who talks from a terminal where this program signs the key.
const terminalUser = "parley-terminal"

// enter becomes a user and enters the conversation.
func (t *talk) enter(ctx context.Context) error {
	var u struct {
		User struct {
			ID string `json:"id"`
		} `json:"user"`
		Key string `json:"key"`
	}
	if t.key != "" {
		t.door = t.door.with("x-user-key", auth.SignUserKey([]byte(t.key), terminalUser, time.Now()))
		if err := t.door.call(ctx, "POST", "/users/get-or-create", map[string]string{"name": "Terminal"}, &u); err != nil {
			return err
		}
	} else {
		if err := t.door.call(ctx, "POST", "/users", map[string]string{"name": "Terminal"}, &u); err != nil {
			return err
		}
		t.door = t.door.with("x-user-key", u.Key)
	}
	t.userID = u.User.ID
	var c struct {
		Conversation struct {
			ID string `json:"id"`
		} `json:"conversation"`
	}
	path, in := "/conversations", map[string]string{}
	if t.conversation != "" {
		path, in = "/conversations/get-or-create", map[string]string{"id": t.conversation}
	}
	err := t.door.call(ctx, "POST", path, in, &c)
	if t.conversation != "" && isType(err, "Forbidden") && t.key == "" {
		err = fmt.Errorf("%w; to go on with a conversation set PARLEY_CHAT_ENCRYPTION_KEY, so that you are the same user again", err)
	}
	t.conversationID = c.Conversation.ID
	return err
}

func (t *talk) say(ctx context.Context) error {
	var sent struct {
		Message chatMessage `json:"message"`
	}
	err := t.door.call(ctx, "POST", "/messages", map[string]any{
		"conversationId": t.conversationID, "payload": map[string]string{"type": "text", "text": t.text},
	}, &sent)
	t.messageID, t.sentAt = sent.Message.ID, sent.Message.CreatedAt
	return err
}

// listen prints what others say until the stream ends.
func (p *program) listen(t *talk, stream *http.Response, heard chan<- struct{}) error {
	err := readEvents(stream.Body, func(data string) error {
		var signal struct {
			Type string      `json:"type"`
			Data chatMessage `json:"data"`
		}
		if json.Unmarshal([]byte(data), &signal) != nil || signal.Type != "message_created" {
			return nil // a ping, or a signal of another kind
		}
		if err := p.print(t, signal.Data); err != nil {
			return err
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		return nil
	})
	return cmp.Or(err, io.ErrUnexpectedEOF)
}

// print shows a message of somebody else, once. A stream begins shortly before
// its time, with the end of an earlier talk; in a conversation times increase.
func (p *program) print(t *talk, m chatMessage) error {
	if m.UserID == t.userID || m.CreatedAt <= t.sentAt || t.printed[m.ID] {
		return nil
	}
	t.printed[m.ID] = true
	if t.json {
		return json.NewEncoder(p.out).Encode(m)
	}
	_, err := fmt.Fprintln(p.out, plainText(m.Payload))
	return err
}

// awaitEnd returns once the bot has handled the message: its event says so, or,
// where nobody can be asked, nothing comes any more.
func (t *talk) awaitEnd(ctx context.Context, heard <-chan struct{}) error {
	if t.runtime == nil {
		return awaitQuiet(ctx, heard)
	}
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		done, err := t.handled(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		case <-heard:
		}
	}
}

func awaitQuiet(ctx context.Context, heard <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-heard:
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-heard:
		case <-time.After(quietAfter):
			return nil
		}
	}
}

// handled asks what became of the event that the message caused.
func (t *talk) handled(ctx context.Context) (bool, error) {
	var list struct {
		Events []struct {
			Status        string `json:"status"`
			FailureReason string `json:"failureReason"`
		} `json:"events"`
	}
	if err := t.runtime.call(ctx, "GET", "/v1/chat/events?type=message_created&messageId="+url.QueryEscape(t.messageID), nil, &list); err != nil {
		return false, err
	}
	if len(list.Events) == 0 {
		return false, nil
	}
	switch e := list.Events[0]; e.Status {
	case "pending", "scheduled":
		return false, nil
	case "failed":
		return true, &exitError{exitBotFailed, fmt.Errorf("the bot failed: %s", cmp.Or(e.FailureReason, "no reason was given"))}
	}
	return true, nil
}

// rest prints the answers that the stream had not brought when the bot was done.
func (p *program) rest(ctx context.Context, t *talk) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	var missed []chatMessage
	for next := ""; ; {
		var page struct {
			Messages []chatMessage `json:"messages"`
			Meta     struct {
				NextToken string `json:"nextToken"`
			} `json:"meta"`
		}
		if err := t.door.call(ctx, "GET", "/conversations/"+url.PathEscape(t.conversationID)+"/messages?nextToken="+url.QueryEscape(next), nil, &page); err != nil {
			return err
		}
		ours := false
		for _, m := range page.Messages { // newest first
			if ours = m.ID == t.messageID; ours {
				break
			}
			missed = append(missed, m)
		}
		if next = page.Meta.NextToken; ours || next == "" {
			break
		}
	}
	for i := len(missed) - 1; i >= 0; i-- {
		if err := p.print(t, missed[i]); err != nil {
			return err
		}
	}
	if len(t.printed) == 0 {
		return &exitError{exitNoAnswer, errors.New("the bot handled the message and said nothing")}
	}
	return nil
}
