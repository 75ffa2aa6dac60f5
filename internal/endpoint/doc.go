// Package endpoint is how one operation reaches a bot or an integration,
// wherever it lives: at a URL or in this process. Everything above it sees one
// contract, the suite in endpointtest, and the meaning of each outcome.
//
//	BotCall | IntegrationCall ── With(body) ─► Operation ─► Endpoint.Invoke ─► Answer, error
//	                                                                            └► Classify, Reason
//
// An answer with any status is an answer; an error says that there was none.
// Classify maps both to what a delivery does next:
//
//	OK           2xx                                               done
//	Final        4xx, address not allowed, answer too large        the reason is kept, not tried again
//	Unreachable  no connection, 502, 503, 504, a built-in whose    the endpoint is down, tries are not counted
//	             database is away
//	Failed       other 5xx, 3xx, no or a broken answer, a panic    tried again a few times
//	TimedOut     sent, and no answer within the limit              the peer may still be at work
//	Canceled     the caller stopped waiting                        nothing is known, nothing is counted
//	Ignored      a built-in that has nobody to hand it to          done, with the reason
//
// A webhook is a place that is only told of things. For one ClassifyWebhook
// judges, which gives it more time: 408, 425 and 429 are Failed, and 410 is
//
//	Gone         410                                               nothing is sent there any more
//
// A connection that breaks after the request was sent is Failed, not
// Unreachable: a bot that crashes on an event must run out of tries. A body over
// the limit is Final, because the peer has done its work and would do it again.
//
// The deadline of Invoke's context is the time limit. Invoke changes nothing in
// the Operation, so the same value can be delivered again and concurrently.
package endpoint
