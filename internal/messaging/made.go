package messaging

import (
	"context"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/api"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
)

// A bot that makes a user or a conversation in the name of an integration asks
// that integration to make it, if it runs outside Parley: only it knows who in
// its channel is meant (create_user and create_conversation of PROTOCOL §2.2,
// which newer integrations replace by actions). One that does not implement
// this answers nothing, and Parley makes the thing itself.

// wanted is what such an operation says.
type wanted struct {
	Channel string            `json:"channel,omitempty"`
	Tags    map[string]string `json:"tags"`
}

// made asks the installation and returns the id of what it has made, "" if
// nothing. member is what the answer holds it under: user or conversation.
func (s *Service) made(ctx context.Context, c Caller, installationID, member string, what wanted) (string, error) {
	in := installation(c.Bot, installationID)
	if c.Installation != nil || in == nil || !in.Outside || s.Calls == nil {
		return "", nil
	}
	if !in.Enabled {
		return "", fault.Forbidden.New("the integration %q is disabled in bot %q", in.Alias, c.Bot.ID)
	}
	if what.Tags == nil {
		what.Tags = map[string]string{}
	}
	body, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	answer, err := s.Calls.Call(ctx, InstallationEndpoint(in.ID), endpoint.Operation{Name: "create_" + member, Body: body})
	if errors.Is(err, delivery.ErrFull) {
		return "", fault.RateLimited.New("too many calls wait for the integration %q; try again in a moment", in.Alias)
	}
	switch endpoint.Classify(answer, err) {
	case endpoint.OK:
		return madeIn(answer.Body, member), nil
	case endpoint.Canceled:
		return "", context.Canceled
	case endpoint.TimedOut:
		return "", fault.OperationTimeout.Wrap(err, "the integration %q did not answer within its time limit", in.Alias)
	}
	return "", fault.Runtime.Wrap(err, "%s", endpoint.Reason(answer, err))
}

// madeIn finds the id in an answer: {"user": {"id": …}} or the user itself.
func madeIn(body []byte, member string) string {
	var answer map[string]jsontext.Value
	if json.Unmarshal(body, &answer, jsontext.AllowDuplicateNames(true)) != nil {
		return ""
	}
	if inner, ok := answer[member]; ok {
		body = inner
	}
	id, _ := api.Raw(body).Member("id").Text()
	return id
}

// unmade is the error for an answer that names what is not there.
func unmade(err error, alias, member, id string) error {
	if fault.Is(err, fault.ResourceNotFound) {
		return fault.Runtime.New("the integration %q answers with the %s %.60q, which doesn't exist", alias, member, id)
	}
	return err
}
