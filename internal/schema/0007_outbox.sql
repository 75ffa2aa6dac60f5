-- ── deliveries to installations that run outside Parley ──────────────────────
-- What an installation is to be told of, in the order of its conversation. A row goes when it is delivered; one that
-- stays has failed for good. The body of message_created is put together from the message when it is read.
CREATE TABLE outbox (
  id              TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  installation_id TEXT NOT NULL,
  operation       TEXT NOT NULL, -- message_created, message_updated, conversation_updated
  payload         TEXT NOT NULL, -- '' for message_created
  conversation_id TEXT NOT NULL,
  message_id      TEXT NOT NULL,
  status          TEXT NOT NULL,
  failure_reason  TEXT NOT NULL,
  lane            TEXT NOT NULL,
  lane_seq        BIGINT NOT NULL,
  attempts        BIGINT NOT NULL,
  created_at      BIGINT NOT NULL
);
CREATE INDEX outbox_lane ON outbox (lane, lane_seq);
CREATE INDEX outbox_bot ON outbox (bot_id, id);

-- ── actions ──────────────────────────────────────────────────────────────────
-- One row for each call of an action.
CREATE TABLE action_log (
  id              TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  installation_id TEXT NOT NULL, -- '' = an action of the bot itself
  action          TEXT NOT NULL,
  outcome         TEXT NOT NULL, -- ok, or the type of the error
  reason          TEXT NOT NULL,
  cached          BOOLEAN NOT NULL,
  started_at      BIGINT NOT NULL,
  duration_ms     BIGINT NOT NULL
);
CREATE INDEX action_log_bot ON action_log (bot_id, id);
CREATE INDEX action_log_started ON action_log (started_at);
