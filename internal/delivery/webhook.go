package delivery

import (
	"time"

	"parley/internal/endpoint"
)

// webhookPauses is the wait after each failed try at a webhook; the last one
// comes again and again, until patience ends.
var webhookPauses = []time.Duration{
	5 * time.Second, 30 * time.Second,
	2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
}

// classifyWebhook gives a try at a webhook its class. One that wants to be left
// alone for a while is left alone as one that cannot be reached: there is no use
// in asking it for other conversations meanwhile.
func (e *Engine) classifyWebhook(t *try, a endpoint.Answer, err error) {
	t.class = endpoint.ClassifyWebhook(a, err)
	if t.class != endpoint.Failed && t.class != endpoint.Unreachable || err != nil {
		return
	}
	if wait, asked := endpoint.RetryAfter(a, e.Now()); asked {
		t.class, t.wait = endpoint.Unreachable, wait
	}
}

// judgeWebhook is judge for a try at a webhook that reached it and failed.
func (e *Engine) judgeWebhook(w *Work, t *try) step {
	now, end := e.now(), w.CreatedAt+patience.Milliseconds()
	if now >= end {
		return step{entry: &entry{work: w, outcome: Outcome{Status: Failed, Reason: t.reason, Dead: true, Attempts: w.Attempt}}}
	}
	pause := e.WebhookPauses[min(e.failedTries(w), len(e.WebhookPauses)-1)]
	return step{
		entry: &entry{work: w, outcome: Outcome{Status: Pending, Reason: t.reason, Attempts: w.Attempt}},
		leave: later, due: min(now+jitter(pause).Milliseconds(), end),
	}
}
