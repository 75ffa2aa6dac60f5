package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// cold measures from the start of the process to the first 200 of /readyz, on a
// database that has been used, beside a Go program that only listens.
type cold struct{ p *parley }

// used is how many messages the database of the cold starts holds.
const used = 10_000

func (s *cold) prepare(ctx context.Context, b *bench) (err error) {
	if s.p, err = b.start(ctx, "cold"); err != nil {
		return err
	}
	if err := fill(ctx, s.p, min(used, b.messages)); err != nil {
		return err
	}
	return s.p.end()
}

// fill stores n messages for a bot that is down.
func fill(ctx context.Context, p *parley, n int) error {
	absent, err := p.newBot(ctx, "http://127.0.0.1:1")
	if err != nil {
		return err
	}
	all, err := messages(ctx, absent)
	if err != nil {
		return err
	}
	const workers = 64
	conns, closeAll, err := pool(p.addr, workers)
	if err != nil {
		return err
	}
	defer closeAll()
	return each(workers, func(w int) error {
		for i := w; i < n; i += workers {
			if _, err := conns[w].expect(http.StatusCreated, all[i%len(all)]); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

func (s *cold) round(ctx context.Context, b *bench) error {
	for range b.starts {
		took, err := s.p.run(ctx)
		if err != nil {
			return err
		}
		b.results.add("cold start", sample{p50: took})
		time.Sleep(100 * time.Millisecond) // the command prints its greeting after it is ready; a start cut short is another matter
		if err := s.p.end(); err != nil {
			return err
		}
		bare, err := bareStart(ctx, b)
		if err != nil {
			return err
		}
		b.results.add("bare start", sample{p50: bare})
	}
	return nil
}

func (s *cold) finish(context.Context, *bench) error { return nil }

// bareStart is the same for the smallest server of this binary.
func bareStart(ctx context.Context, b *bench) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	addr, err := freeAddr()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), childVariable+"=bare", "PARLEY_BENCH_ADDR="+addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = ready(ctx, addr)
	took := time.Since(begin)
	_ = in.Close() // it ends by this
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	return took, err
}
