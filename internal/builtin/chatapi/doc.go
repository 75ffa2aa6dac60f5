// Package chatapi is the built-in integration `chat`: the door through which
// chat users reach a bot. It speaks the 21 operations of the Chat API over the
// messaging module, renames what they see, and tells listeners live.
//
// # Names
//
// A client may choose the id of a user or conversation. It is kept as the tag
// `fid` of the chat installation and stands for the real id wherever a chat
// client sees one; the bot sees the real one. A chosen id must not look like one
// of ours; so an id that does is a real one, and any other is looked up. The
// name goes with its bearer: what a deleted user has said stays, under the real
// id, and is not taken for the words of the next user of that name.
//
// # Keys
//
// A user key is an HS256 JWT {id}. It is signed with the installation's
// encryptionKey if one is configured, else with a key of the installation's own
// that is derived from the master key, so that a key of one installation is
// worth nothing at another.
//
// # Payloads
//
// Chat clients write {type, …} with metadata beside it. The Runtime API has the
// type outside, metadata inside, and the parts of a bloc as {type, payload}. The
// mapping loses nothing either way.
//
// # Signals
//
// A signal is put into words in one place, whether it goes out live or is read
// from the log again, so a listener that comes back gets what it would have got.
package chatapi
