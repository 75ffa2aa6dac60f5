// Package delivery carries pending work to endpoints: in order within a lane,
// at least once, and without one endpoint slowing another. It knows neither
// what the work is (a Source does) nor where endpoints live (an Invoker does).
//
// # Model
//
// A lane is an order of deliveries, for example that of one conversation. It is
// a row in the table lanes:
//
//	key       who it is
//	endpoint  where its work goes, for the life of the lane
//	seq       sequence of its newest entry; entries are numbered 1, 2, 3, …
//	done      no entry up to here is pending, so that a claim begins behind it
//	due       when somebody has to look at it; never = it has nothing to do
//	owner     the claim that holds it, '' = nobody; with lease_until
//
// and it is in one of four states:
//
//	                Enqueue claims for its own node
//	     ┌───────────────────────────────────────────────┐
//	     │                                               ▼
//	  idle ── Enqueue, no room here ──► ready ─ sweep ─► held ──► one try at a time
//	due never                        due now, free       │  ▲
//	     ▲                                ▲              │  └ more entries
//	     │                       its time │              │
//	     │                                │              │
//	     │                             waiting ◄─────────┤ a try failed, or the
//	     │                            due later          │ endpoint is unreachable
//	     └───────────────────────────────────────────────┘ every entry is done
//
// A producer calls Enqueue and then inserts its entry, in one transaction. One
// statement numbers the entry and, where the lane is idle, claims it for this
// node, so that after the commit the lane goes straight to a worker. If this
// node holds the lane already the worker is told; if another does, it gets a
// hint over the bus.
//
//	Enqueue ─ commit ─► queue of the endpoint ─► worker: Source.Next ─► Invoke ─► judge
//	 sweep ────────────►   (turn by turn)                 ▲                         │
//	                                                      └── next entry ◄──────────┤
//	                              after 5 ms, with the next commit:                 ▼
//	                              fence · Source.Done · attempts · breaker · lane ◄ outcome
//
// A worker keeps its position in the lane in memory and goes on with the next
// entry while the outcome of the last one is still on its way to the disk. The
// outcomes of a lane are written by one closure at a time, in order, and only
// the closure that carries the last of them gives the lane up. When others wait
// for a worker, a lane goes to the back of the queue after each entry; endpoints
// take turns.
//
// # Giving a lane up
//
// A lane goes idle by
//
//	UPDATE lanes SET due = never, … WHERE key = … AND owner = my claim AND seq = the last entry I attended to
//
// The condition is on the locked row alone, never on the table of entries. A
// producer that committed before has raised seq, and the lane stays. One that
// holds the row in an open transaction makes the statement wait; then PostgreSQL
// looks at the row again, finds seq raised, and the lane stays. One that comes
// later finds the lane idle and claims it. If the statement asked the table of
// entries for pending ones, it would ask its own snapshot, older than the
// producer's commit, and the entry would never be seen.
//
// # Claims and leases
//
// The owner is unique to each claim, not to the node, so owner = my claim under
// the row lock proves that nobody took the lane since. That is the fence in
// front of every outcome: an outcome of a lost claim is dropped whole, its event
// stays as the new holder leaves it. A lease that ran out without being taken
// is no reason to drop one. Leases last 30 s and are renewed every 10 s when
// held for more than 8 s; below 7.5 s no new try begins. Nodes compare leases
// with their own clocks, which have to agree within some seconds. With a
// database of its own (Exclusive) an engine ends all older leases at the start,
// otherwise those of earlier processes at its home.
//
// # What a try means
//
//	ok            processed
//	ignored       so, with the reason; the lane moves on
//	final         failed with the reason; the lane moves on
//	failed        tried again after 2 s, 8 s and 30 s, then a dead letter
//	timed out     failed with the reason, or like failed if the work asks for it
//	unreachable   the endpoint's breaker opens; not counted; a dead letter 72 h after its creation
//
// A webhook, which only tells a place outside of something, is given more time:
//
//	failed,       tried again after 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 5 h and then
//	timed out     every 10 h, a last time 72 h after its creation, then a dead letter
//	asked to wait 429 or 503 with Retry-After, of at most 24 h: like unreachable, and the
//	              endpoint is left alone for at least as long
//	gone          failed with the reason, and the Source hears that the endpoint wants no more
//
// Work that its Source makes pending once more, at the end of its lane, has all
// its tries and all its time again; see Work.Before.
//
// Pauses vary by a fifth, so that what failed together is not tried together. The
// lane waits, so its order stays.
//
// While a breaker is open every lane of the endpoint is parked: due when its
// oldest entry has waited for 72 h. After 1 s, then 2 s, up to 5 min, one lane
// on one node may try. When it gets an answer, whatever it says, the row is
// marked closed, the parked lanes and those that wait for another try are made
// due, and the row goes. Lanes are parked only under the lock of an open row, so
// none misses the waking, and a process that dies in the middle of it leaves the
// mark for the next sweep.
// Reset, for an endpoint whose address has changed, does the same at once; a try
// that was under way then opens no breaker and waits for no pause.
// A copy of the row is kept in memory for a second, or for as long as nobody
// else can change it.
//
// # Guarantees
//
//   - Every committed entry is delivered until it has an outcome, with the same
//     id, and with a higher attempt number once a try was recorded.
//   - Entries of a lane are delivered in the order of their sequences, and a lane
//     never has two tries in flight while its holder keeps its lease.
//   - A slow endpoint holds its share of the workers, of the queue and nothing
//     else; a dead one costs a try now and then. A share is at most half of what
//     is free, so that many slow ones together leave room for one that is not.
//   - The database is the truth. Hints, the order of callbacks after commits and
//     everything in memory may be lost; a sweep looks at due lanes at the
//     earliest due time, when called, and every 5 s.
//
// # Failure cases
//
//   - kill -9: what was not marked is delivered again when a process is back at
//     that home, and in a cluster when the lease ends at the latest.
//   - A node stands still for longer than its lease: the lane is delivered by
//     another node, perhaps the same entry twice; the late outcome is dropped.
//   - Outcomes cannot be written: the lane stays held and the write is repeated
//     every second; after 64 unwritten outcomes the lane pauses.
//   - The commit of a producer succeeds and its connection breaks: the claim is
//     in the database and nobody knows of it; its lease ends and a sweep takes it.
//   - Queues are full: producers leave lanes due and unclaimed, other nodes get a
//     hint, and the sweep takes them when there is room.
//   - Stop: tries in flight are finished and marked, lanes released. If that takes
//     too long they are cut off and delivered again.
//
// # Locks
//
// Row locks are taken in the order lane → event → attempt → breaker, by
// producers too; a producer of several lanes takes them in the order of their
// keys. Claims, renewals and wake-ups, which are for many lanes, skip locked
// rows. Writes of outcomes that share a commit take lanes in that order, too.
// What is left, two nodes that write to the same two breakers, is a deadlock
// that the database resolves and sqldb runs again.
//
// The engine has one mutex. It is never held while the database, the bus, a
// Source or an Invoker is called.
package delivery
