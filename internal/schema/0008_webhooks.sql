-- ── what was delivered, for a while ──────────────────────────────────────────
-- A row of outbox stays when its delivery is over: processed and ignored ones for the age of the delivery log, failed ones
-- until somebody deals with them.
ALTER TABLE outbox ADD COLUMN done_at BIGINT NOT NULL DEFAULT 0; -- 0 = pending
DROP INDEX outbox_lane;
CREATE INDEX outbox_lane ON outbox (lane, lane_seq) WHERE status = 'pending';
CREATE INDEX outbox_done ON outbox (done_at) WHERE status IN ('processed', 'ignored');

-- How the answer of a try begins; '' = there was none, or none worth keeping.
ALTER TABLE attempts ADD COLUMN response TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN response_type TEXT NOT NULL DEFAULT ''; -- its content type

-- The webhook of an installation said that it is gone (410): nothing is sent to it until it is set up anew.
ALTER TABLE installations ADD COLUMN gone BOOLEAN NOT NULL DEFAULT FALSE;
