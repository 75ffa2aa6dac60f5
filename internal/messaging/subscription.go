package messaging

// unsubscribed is why an event is ignored that nobody wants to hear of.
const unsubscribed = "the bot has not subscribed to this type of event"

// ignores reports whether the bot does not want to hear of an event that the
// caller makes. It chooses only among the events of its installations, and only
// once it has subscribed to one: what the server or the bot itself makes, such
// as message_created or a recurring event, always arrives.
//
// A subscription names an event as the bot sees it, alias:type; the name of an
// integration stands for its one installation.
func (c Caller) ignores(bare string) bool {
	if c.Installation == nil || len(c.Subscriptions) == 0 || c.Subscriptions[c.Installation.Alias+":"+bare] {
		return false
	}
	name := c.Installation.IntegrationName
	return !c.Subscriptions[name+":"+bare] || c.names().Owner(name) != c.Installation.ID
}
