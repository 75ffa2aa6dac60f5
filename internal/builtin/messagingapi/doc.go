// Package messagingapi is the built-in integration `messaging`: plain HTTP
// between a bot and a service that is no chat. One request at its door brings a
// message in, and each message of the bot goes out as one request to the
// response endpoint of the installation.
//
// # Names
//
// The service names its users, conversations and messages as it likes. The names
// are kept as the tag `id` of the installation, and the first request that uses
// one makes what it names. A conversation that the bot has opened by itself has
// no such name; the service is told its id in Parley, and may use that in turn.
//
// # In
//
//	POST /{webhookId}   Authorization: bearer TOKEN
//	{userId, conversationId, messageId, type, text, payload}
//	                    ─► one transaction: user, conversation, message
//	                    ◄─ {message, user, conversation}
//
// The same messageId in the same conversation is the same message, however often
// and however concurrently it is sent: the bot hears of it once. With ?wait=10 the
// answer comes when the bot is done with the message, with its replies, whether
// there is a response endpoint or not.
//
// # Out
//
//	{type, payload, conversationId, botpressUserId, botpressMessageId, botpressConversationId}
//
// goes through the durable outbox: in the order of the conversation, again and
// again until the endpoint has taken it (see package delivery). Without a
// response endpoint there is nobody to tell, and the record says so.
//
// # Registration
//
// An installation with a response endpoint is registered once the endpoint has
// answered {type: "test", payload: "test"} with a status of 200 to 299.
package messagingapi
