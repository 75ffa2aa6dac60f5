package messaging

import (
	"time"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// A stream shows a message while its bot writes it. The bot sends deltas, which
// listeners hear of as signals of the conversation; its message ends the
// stream, or an abort does.
//
//	AddDelta ──► deltas ──► every 100 ms: the ones that follow, as one signal
//	             on any node                                  │
//	message with metadata.streamId ──► message_stream_complete, message_created
//	                                   deltas leave the log of signals
//
// Deltas wait in a table, because one may come to this node and the next to
// another: whoever signals takes all that follow the last signal, in the order
// of their sequences, under the lock of the conversation. A sequence that is
// there already or has been signalled changes nothing. Where one is missing,
// those behind it wait a moment for it and then go on without it; the message
// has the whole text.
//
// Only the first delta of a stream is waited for. The others are written with
// the next commit: what a crash takes is in the message. A delta that comes
// after the end is let pass, because bots do not wait for one before the next.

// States of a stream.
const (
	streamOpen   = "open"
	streamEnded  = "ended"
	streamFolded = "folded"
)

const (
	maxStreamID = 200
	// maxDelta is the number of bytes in a delta, and about that in a signal.
	maxDelta = 32 << 10
	// maxStreams is the number of messages that are written in a conversation at once.
	maxStreams = 8
	// streamInterval is the time between two signals of a stream.
	streamInterval = 100 * time.Millisecond
	// streamPatience is how long deltas wait for one before them that is missing.
	streamPatience = 500 * time.Millisecond
	// streamIdle is how long a bot may think between two deltas before the
	// stream counts as aborted.
	streamIdle = 15 * time.Minute
)

// Delta is a piece of a message that is being written.
type Delta struct {
	StreamID        string
	Sequence        int64
	Text            string
	CreatedAt       api.Time
	ClientMessageID string // "" = none
}

// check refuses what no delta may be.
func (d Delta) check() error {
	switch {
	case d.StreamID == "" || len(d.StreamID) > maxStreamID:
		return fault.InvalidPayload.New("streamId must have 1 to %d bytes", maxStreamID)
	case d.Sequence < 0:
		return fault.InvalidPayload.New("sequence must be at least 0")
	case len(d.Text) > maxDelta:
		return fault.PayloadTooLarge.New("delta has %d bytes; at most %d are allowed", len(d.Text), maxDelta)
	case len(d.ClientMessageID) > maxStreamID:
		return fault.InvalidPayload.New("clientMessageId must have at most %d bytes", maxStreamID)
	}
	return nil
}

// completes is the stream that a message of the caller ends, "" if none: only
// the bot writes streams.
func (c Caller) completes(payload api.Object) string {
	if c.Installation != nil {
		return ""
	}
	id, ok := api.Object(payload.Member("metadata")).Member("streamId").Text()
	if !ok || len(id) > maxStreamID {
		return ""
	}
	return id
}

// stream is a row of table streams.
type stream struct {
	ConversationID, ID, BotID, State string
	Next, Sent, Bytes, UpdatedAt     int64
}

// Columns binds the columns of table streams.
func (v *stream) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "conversation_id", Field: &v.ConversationID},
		{Name: "id", Field: &v.ID},
		{Name: "bot_id", Field: &v.BotID},
		{Name: "state", Field: &v.State},
		{Name: "next", Field: &v.Next},
		{Name: "sent", Field: &v.Sent},
		{Name: "bytes", Field: &v.Bytes},
		{Name: "updated_at", Field: &v.UpdatedAt},
	}
}

// delta is a row of table deltas.
type delta struct {
	ConversationID, StreamID, Text, ClientMessageID string
	Sequence, CreatedAt, ArrivedAt                  int64
}

// Columns binds the columns of table deltas.
func (v *delta) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "conversation_id", Field: &v.ConversationID},
		{Name: "stream_id", Field: &v.StreamID},
		{Name: "sequence", Field: &v.Sequence},
		{Name: "delta", Field: &v.Text},
		{Name: "client_message_id", Field: &v.ClientMessageID},
		{Name: "created_at", Field: &v.CreatedAt},
		{Name: "arrived_at", Field: &v.ArrivedAt},
	}
}
