// Package bus carries wake-ups and live signals between the parts of a node and
// between nodes. It is a hint: the database is the truth, and a message that is
// lost makes something late and never wrong.
package bus

// Bus delivers small messages by topic, at most once.
type Bus interface {
	// Publish hands data to whoever listens to topic now. It may drop it and
	// never blocks. The listeners share data, so nobody changes it afterwards.
	Publish(topic string, data []byte)

	// Subscribe calls fn for the messages of topic until cancel is called. fn
	// runs on the goroutine of a publisher, of several at a time, and must not
	// block; it may publish, subscribe and cancel. When cancel has returned fn is
	// not started again. A call that another goroutine has begun may still be
	// running then: waiting for it would deadlock a listener whose fn takes the
	// lock that the caller of cancel holds.
	Subscribe(topic string, fn func(data []byte)) (cancel func())

	// Listening reports whether somebody may listen to topic. It is false only
	// if certainly nobody does, on any node.
	Listening(topic string) bool

	// Close ends all subscriptions. What is published afterwards is dropped.
	Close() error
}
