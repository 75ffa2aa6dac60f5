// Package realtime moves the signals of a topic to whoever listens to it, over
// server-sent events or WebSocket, with a position to resume from. It knows
// nothing of what a signal says and stores none: the signals live in a Log, the
// bus only tells that there is a new one.
//
// # Model
//
// A topic has a log of signals at rising positions. Positions may be missing
// (a signal that was folded or has expired) but are never used twice. A hub is
// the part of one node; a feed is a topic that has listeners on this node.
//
//	commit ──► Notify ──► bus "sig.<topic>" ──► feed ──► batch ──┬─► listener ─► socket
//	                       pos, data            │  ▲             ├─► listener ─► queue ─► drainer ─► socket
//	                                            │  │             └─► listener (joining: held)
//	                       a position is missing│  │the head is higher
//	                                            ▼  │
//	             replay ◄────────────────────  Log ◄── sweep, every few seconds
//
// A feed has one pump at a time, a goroutine that exists while there is work.
// It takes the hints that follow the last position, in order, and hands them to
// all listeners as one batch, encoded once per protocol. When the next position
// is missing it reads the log instead. Hints that wait for an earlier one are
// kept sorted in a small list; when the list is full a hint is dropped, which
// costs a read and nothing else.
//
// A listener joins in this order: subscribe and hold what arrives, read the
// head, replay the log up to it, then go on with what was held above it. When
// more arrived during a long replay than may be held, it is thrown away and the
// replay goes on to the new end. Every listener carries the last position it
// was given and takes only higher ones, so neither the seam nor a repeated hint
// doubles anything.
//
// A listener without a position starts 250 ms before its arrival: clients post
// first and listen afterwards, and a fast bot answers in between.
//
// # Writing
//
// An HTTP/1 connection is taken over after the response head: an idle listener
// is a socket and about a kilobyte, without a goroutine. The pump writes to
// the socket without waiting. What does not fit goes to the listener's queue
// and a drainer, a goroutine that lives until the queue is empty. HTTP/2 and
// writers that cannot be taken over have no socket of their own: their handler
// stays and every frame goes through the queue. WebSocket frames from the
// server carry no mask, so they are shared between listeners as well; the
// library does the handshake and reads, its pongs go through the same queue.
//
// # Guarantees
//
//   - A listener gets every signal of the log above its position once, in order,
//     on any node, whatever the bus drops, doubles or reorders. A bus that loses
//     everything makes signals late by the sweep, never wrong.
//   - Notify does not wait for listeners: it ends with a hint in a list.
//   - A slow listener delays nobody. It is cut when its queue is full or nothing
//     could be written for 30 s, and resumes from its position.
//   - After End has reached a node, no listener of the group there is given a
//     later signal; what was queued is still written. EndAfter gives everything
//     up to a position and nothing after it, wherever the listener is by then.
//   - Memory is bounded per listener and per feed; what exceeds a bound is read
//     from the log again.
//
// # Failures
//
//   - Lost hint: the next hint skips a position, or the sweep sees a higher
//     head; both make the feed read the log.
//   - Lost End: Listen.Allowed is asked again by the sweep about once a minute.
//   - Log unavailable: a joining client gets the error, a replaying one is cut,
//     live ones wait; the sweep tries again.
//   - Position above the head (the database was restored from a backup): the
//     listener starts at the head.
//   - Client gone: Linux tells of a taken-over connection at once; elsewhere it
//     is looked at with every ping and freed within one interval. A client that
//     vanished without a word is dropped by the kernel's user timeout or a
//     missing pong.
//   - All clients come back at once: those who join read the log a few at a
//     time, and a read has its time from its turn on.
//   - Node dies: the client connects to another and resumes.
//
// # Locks
//
// Hub.mu, wheel.mu, feed.mu and listener.mu are never held together, so they
// have no order. listener.mu is held across a write that cannot wait, because
// it orders the bytes of the socket; none is held across the bus or the log.
package realtime
