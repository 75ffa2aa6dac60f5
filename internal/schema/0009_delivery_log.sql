-- ── the log of deliveries, and what is delivered once more ───────────────────
-- Of what failed: it is a dead letter. It was tried as often, or for as long, as it may be; otherwise somebody refused it.
ALTER TABLE events ADD COLUMN dead BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE outbox ADD COLUMN dead BOOLEAN NOT NULL DEFAULT FALSE;
-- A delivery that is replayed becomes pending again in its old row. Its tries are numbered on and counted anew.
ALTER TABLE events ADD COLUMN tries_before BIGINT NOT NULL DEFAULT 0; -- tries made before it was replayed
ALTER TABLE outbox ADD COLUMN tries_before BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN pending_at BIGINT NOT NULL DEFAULT 0; -- when it was replayed, 0 = never
-- What nobody got. Rows come here when something went wrong, and never on the way of a delivery that succeeds.
CREATE INDEX outbox_status ON outbox (bot_id, status, id) WHERE status IN ('failed', 'ignored');
