package delivery

import (
	"context"
	"errors"
	"sync"

	"parley/internal/endpoint"
)

// ErrFull reports that too many calls wait for their turn.
var ErrFull = errors.New("delivery: too many calls are waiting")

// Pool makes calls whose caller waits for the answer: actions, registrations,
// pings. It has bounds of its own, so that events that wait for the actions
// they called never hold what the actions need. Calls are not repeated.
type Pool struct {
	invoker     Invoker
	calls       chan struct{}
	perEndpoint int
	maxWaiting  int // for one endpoint

	mu        sync.Mutex
	endpoints map[string]*gate
}

// gate bounds the calls to one endpoint.
type gate struct {
	calls chan struct{}
	users int // calls that hold or want a place
}

// NewPool makes a Pool of so many calls at a time, in all and to one endpoint.
// For each endpoint as many as calls may wait.
func NewPool(i Invoker, calls, perEndpoint int) *Pool {
	return &Pool{invoker: i, calls: make(chan struct{}, calls), perEndpoint: perEndpoint, maxWaiting: calls, endpoints: map[string]*gate{}}
}

// Call invokes an operation within the endpoint's limit and returns what
// endpoint.Classify judges; a panic is an *endpoint.PanicError. It waits for its
// turn as long as ctx allows and returns ErrFull if too many do.
func (p *Pool) Call(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
	if err := p.enter(ctx, endpointID); err != nil {
		return endpoint.Answer{}, err
	}
	defer p.exit(endpointID)
	ctx, cancel := context.WithTimeout(ctx, p.invoker.Limit(ctx, endpointID))
	defer cancel()
	return invoke(ctx, p.invoker, endpointID, op)
}

// enter takes a place at the endpoint before one in the pool: who waits for a
// slow endpoint keeps nobody else out.
func (p *Pool) enter(ctx context.Context, endpointID string) error {
	g, err := p.join(endpointID)
	if err != nil {
		return err
	}
	if err = take(ctx, g.calls); err == nil {
		if err = take(ctx, p.calls); err == nil {
			return nil
		}
		<-g.calls
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveLocked(endpointID, g)
	return err
}

func (p *Pool) join(endpointID string) (*gate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.endpoints[endpointID]
	if g == nil {
		g = &gate{calls: make(chan struct{}, p.perEndpoint)}
		p.endpoints[endpointID] = g
	}
	if g.users >= p.perEndpoint+p.maxWaiting {
		return nil, ErrFull
	}
	g.users++
	return g, nil
}

func take(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Pool) exit(endpointID string) {
	<-p.calls
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.endpoints[endpointID]
	<-g.calls
	p.leaveLocked(endpointID, g)
}

func (p *Pool) leaveLocked(endpointID string, g *gate) {
	if g.users--; g.users == 0 {
		delete(p.endpoints, endpointID)
	}
}
