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
	"slices"
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
		Use:   "chat [TEXT]",
		Short: "Talk to a bot, or say one thing and print its answers",
		Long: `Say something to a bot over the Chat API and print its answers as they come.
It ends when the bot has handled the message.

Without a text it is a conversation: what you type goes to the bot, and what it
says appears at once, also while it is still writing. Arrow keys bring back what
you said; Ctrl-D or Ctrl-C ends it. Where the input is no terminal, each line is
said in turn, the next one when the bot has handled it.

Each call begins a new conversation unless --conversation names one: any name
of yours, or the id of an earlier one.

Exit status: 0 the bot answered, 1 something went wrong here, 2 wrong usage,
3 the bot failed, 4 the bot did not answer. A conversation on a terminal ends
with 0, whatever the bot did; one of lines with the first that went wrong.

Without --bot and --data, PARLEY_CHAT_API_URL may name a chat on any machine,
and PARLEY_CHAT_ENCRYPTION_KEY the key that signs its users; parley env prints
both. The end is then guessed: two quiet seconds after an answer.`,
		Example: `  parley chat
  parley chat "hello"
  parley chat --bot bot_01… --conversation demo "and again"
  parley chat < questions.txt`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("%s takes one text, got %d arguments; put quotes around it", c.CommandPath(), len(args))
			}
			return nil
		},
	}
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.Flags().StringVar(&o.botID, "bot", "", "`ID` of the bot (default: the echo bot of parley dev)")
	c.Flags().StringVar(&o.door, "chat-url", "", "`URL` of the chat, instead of a data directory (PARLEY_CHAT_API_URL)")
	c.Flags().StringVar(&o.conversation, "conversation", "", "`NAME` of the conversation to go on with")
	c.Flags().DurationVar(&o.timeout, "timeout", 60*time.Second, "how long to wait for the bot, each time")
	c.Flags().BoolVar(&o.json, "json", false, "print each answer as a line of JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if o.door == "" && o.botID == "" && !cmd.Flags().Changed("data") {
			o.door = p.getenv("PARLEY_CHAT_API_URL")
		}
		begin := func(ctx context.Context, t *talk) error {
			t.chatOptions, t.printed = o, map[string]bool{}
			if len(args) == 0 {
				return p.converse(ctx, t)
			}
			return p.talk(ctx, t, args[0])
		}
		if o.door != "" {
			return begin(cmd.Context(), &talk{door: newClient(o.door, ""), key: p.getenv("PARLEY_CHAT_ENCRYPTION_KEY")})
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
			return begin(ctx, &talk{door: door, key: e.ChatKey, runtime: conn.with("x-bot-id", e.BotID)})
		})
	}
	return c
}

// talk is what is said to a bot, and what comes of it.
type talk struct {
	chatOptions
	door    *client
	key     string  // signs the user's key; "" leaves that to the server
	runtime *client // asks what became of the event; nil where that is not possible

	userID         string
	conversationID string
	sent           chatMessage // the last one
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

// talk says one thing and prints the answers.
func (p *program) talk(ctx context.Context, t *talk, text string) error {
	ctx, cancel := t.limited(ctx)
	defer cancel()
	if err := t.enter(ctx); err != nil {
		return orCause(ctx, err)
	}
	return p.exchange(ctx, t, text)
}

// limited bounds the time that the bot may take.
func (t *talk) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, t.timeout, &exitError{exitNoAnswer, fmt.Errorf("the bot did not answer within %s", t.timeout)})
}

// exchange says something in a conversation that was entered, and prints the
// answers until the bot has handled it.
func (p *program) exchange(ctx context.Context, t *talk, text string) error {
	before := len(t.printed)
	// Listening begins before the message is sent, so that nothing is missed.
	stream, err := t.door.send(ctx, "GET", t.listenPath(), nil)
	if err != nil {
		return orCause(ctx, err)
	}
	defer stream.Body.Close()
	if t.sent, err = t.post(ctx, text); err != nil {
		return orCause(ctx, err)
	}
	heard := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.hear(t, stream, heard) })
	g.Go(func() error { return cmp.Or(t.awaitEnd(ctx, heard), errDone) })
	defer context.AfterFunc(ctx, func() { _ = stream.Body.Close() })() // whoever ends first ends the other
	if err := g.Wait(); !errors.Is(err, errDone) {
		return orCause(ctx, err)
	}
	if err := p.rest(ctx, t); err != nil {
		return err
	}
	if len(t.printed) == before {
		return &exitError{exitNoAnswer, errors.New("the bot handled the message and said nothing")}
	}
	return nil
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

func (t *talk) listenPath() string {
	return "/conversations/" + url.PathEscape(t.conversationID) + "/listen"
}

func (t *talk) post(ctx context.Context, text string) (chatMessage, error) {
	var answer struct {
		Message chatMessage `json:"message"`
	}
	err := t.door.call(ctx, "POST", "/messages", map[string]any{
		"conversationId": t.conversationID, "payload": map[string]string{"type": "text", "text": text},
	}, &answer)
	return answer.Message, err
}

// hear prints what others say until the stream ends.
func (p *program) hear(t *talk, stream *http.Response, heard chan<- struct{}) error {
	err := readEvents(stream.Body, func(_, data string) error {
		var signal struct {
			Type string      `json:"type"`
			Data chatMessage `json:"data"`
		}
		if json.Unmarshal([]byte(data), &signal) != nil || signal.Type != "message_created" {
			return nil // a ping, or a signal of another kind
		}
		before := len(t.printed)
		if err := p.print(t, signal.Data); err != nil {
			return err
		}
		if len(t.printed) == before {
			return nil // one's own, or of an earlier talk
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
	if m.UserID == t.userID || m.CreatedAt <= t.sent.CreatedAt || t.printed[m.ID] {
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
		done, err := t.handled(ctx, t.sent.ID)
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

// handled asks what became of the event that a message caused.
func (t *talk) handled(ctx context.Context, messageID string) (bool, error) {
	var list struct {
		Events []struct {
			Status        string `json:"status"`
			FailureReason string `json:"failureReason"`
		} `json:"events"`
	}
	if err := t.runtime.call(ctx, "GET", "/v1/chat/events?type=message_created&messageId="+url.QueryEscape(messageID), nil, &list); err != nil {
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
	missed, err := t.since(ctx, t.sent)
	if err != nil {
		return err
	}
	for _, m := range missed {
		if err := p.print(t, m); err != nil {
			return err
		}
	}
	return nil
}

// since lists the messages of the conversation after one, the oldest first.
func (t *talk) since(ctx context.Context, last chatMessage) ([]chatMessage, error) {
	var all []chatMessage
	for next := ""; ; {
		var page struct {
			Messages []chatMessage `json:"messages"`
			Meta     struct {
				NextToken string `json:"nextToken"`
			} `json:"meta"`
		}
		if err := t.door.call(ctx, "GET", "/conversations/"+url.PathEscape(t.conversationID)+"/messages?nextToken="+url.QueryEscape(next), nil, &page); err != nil {
			return nil, err
		}
		for _, m := range page.Messages { // newest first
			if m.CreatedAt <= last.CreatedAt {
				slices.Reverse(all)
				return all, nil
			}
			all = append(all, m)
		}
		if next = page.Meta.NextToken; next == "" {
			slices.Reverse(all)
			return all, nil
		}
	}
}
