package messagingapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/endpoint"
	"parley/internal/fault"
)

// probeTime is how long the response endpoint may take to answer the probe.
const probeTime = 10 * time.Second

// NewEndpoint is where an installation with this configuration is told of the
// bot's messages and of its registration.
func NewEndpoint(client endpoint.Client, c Configuration) endpoint.Endpoint {
	return endpoint.NewBuiltin(teller{client, c}.invoke)
}

// teller tells a response endpoint.
type teller struct {
	client endpoint.Client
	Configuration
}

var errNobody = errors.New("the installation has no response endpoint; set responseEndpointUrl in its configuration")

func (t teller) invoke(ctx context.Context, op endpoint.Operation) (endpoint.Answer, error) {
	switch op.Name {
	case "message_created":
		return t.message(ctx, op)
	case "register":
		return t.register(ctx, op)
	case "unregister", "ping":
		return done, nil
	}
	return refuse("the integration %s has no operation %q", Name, op.Name), nil
}

// created is what is read of a message_created.
type created struct {
	Type         string     `json:"type"`
	Payload      api.Object `json:"payload"`
	Conversation struct {
		ID   string            `json:"id"`
		Tags map[string]string `json:"tags"`
	} `json:"conversation"`
	Message struct {
		ID     string `json:"id"`
		UserID string `json:"userId"`
	} `json:"message"`
}

// response is a message of the bot as the response endpoint gets it.
type response struct {
	Type                   string     `json:"type"`
	Payload                api.Object `json:"payload"`
	ConversationID         string     `json:"conversationId"`
	BotpressUserID         string     `json:"botpressUserId"`
	BotpressMessageID      string     `json:"botpressMessageId"`
	BotpressConversationID string     `json:"botpressConversationId"`
}

func (t teller) message(ctx context.Context, op endpoint.Operation) (endpoint.Answer, error) {
	if t.ResponseEndpointURL == "" {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Ignored, Err: errNobody}
	}
	var in created
	if err := json.Unmarshal(op.Body, &in); err != nil {
		return refuse("the body is not that of message_created"), nil
	}
	out := response{
		Type: in.Type, Payload: in.Payload, ConversationID: in.Conversation.Tags[nameTag],
		BotpressUserID: in.Message.UserID, BotpressMessageID: in.Message.ID, BotpressConversationID: in.Conversation.ID,
	}
	if out.ConversationID == "" { // the bot has opened it
		out.ConversationID = in.Conversation.ID
	}
	return t.post(ctx, op, out)
}

// post hands a value to the response endpoint and answers as that does.
func (t teller) post(ctx context.Context, op endpoint.Operation, what any) (endpoint.Answer, error) {
	body, err := json.Marshal(what)
	if err != nil {
		return endpoint.Answer{}, err
	}
	op.Body = body
	return endpoint.NewWebhook(t.ResponseEndpointURL, t.client).Invoke(ctx, op.WithSecret(string(t.WebhookSecret)))
}

// probe is the first thing a response endpoint gets.
type probe struct {
	Type    string `json:"type"`
	Payload string `json:"payload"`
}

// register asks the response endpoint whether it takes messages. Somebody who
// has just set it waits for the outcome, so any answer but a good one is final.
//
// Compat: the original cannot be registered without a response endpoint; here
// replies may also come in the answer to a message.
func (t teller) register(ctx context.Context, op endpoint.Operation) (endpoint.Answer, error) {
	if t.ResponseEndpointURL == "" {
		return done, nil
	}
	limited, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	answer, err := t.post(limited, op, probe{"test", "test"})
	switch {
	case ctx.Err() != nil:
		return endpoint.Answer{}, ctx.Err()
	case endpoint.Classify(answer, err) == endpoint.OK:
		return done, nil
	}
	return refuse("the response endpoint does not take messages: %s", endpoint.Reason(answer, err)), nil
}

var done = endpoint.Answer{Status: http.StatusOK, Body: []byte("{}")}

// refuse is the answer to what cannot succeed by being tried again.
func refuse(format string, args ...any) endpoint.Answer {
	f := fault.Runtime.New(format, args...)
	body, err := json.Marshal(f.Body(time.Time{}))
	if err != nil {
		panic(err) // a struct of texts
	}
	return endpoint.Answer{Status: f.Kind.Status, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}
