-- What bots and installations count, by day. A count is the sum over its shards: several rows, so that those who count
-- at once do not wait for each other.
CREATE TABLE analytics (
  bot_id          TEXT NOT NULL,
  day             BIGINT NOT NULL, -- its beginning in UTC
  installation_id TEXT NOT NULL,   -- who counts, '' = the bot
  name            TEXT NOT NULL,
  shard           BIGINT NOT NULL,
  count           BIGINT NOT NULL,
  PRIMARY KEY (bot_id, day, installation_id, name, shard)
) {without_rowid};
CREATE INDEX analytics_day ON analytics (day);

-- ── messages that are shown while they are being written ─────────────────────
CREATE TABLE streams (
  conversation_id TEXT NOT NULL,
  id              TEXT NOT NULL, -- as the bot chose it
  bot_id          TEXT NOT NULL,
  state           TEXT NOT NULL, -- open, ended (by its message or an abort), folded (its deltas are removed)
  next            BIGINT NOT NULL, -- sequence of the delta that is signalled next
  sent            BIGINT NOT NULL, -- sequence that the next signal shows
  bytes           BIGINT NOT NULL, -- signalled so far
  updated_at      BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, id)
) {without_rowid};
CREATE INDEX streams_state ON streams (state, updated_at);
-- Deltas that have arrived, on whichever node, and are not signalled yet.
CREATE TABLE deltas (
  conversation_id   TEXT NOT NULL,
  stream_id         TEXT NOT NULL,
  sequence          BIGINT NOT NULL,
  delta             TEXT NOT NULL,
  client_message_id TEXT NOT NULL,
  created_at        BIGINT NOT NULL, -- as the bot says
  arrived_at        BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, stream_id, sequence)
) {without_rowid};
-- The stream of a delta: it is left out of the log once the stream has ended.
ALTER TABLE signals ADD COLUMN stream TEXT NOT NULL DEFAULT '';
CREATE INDEX signals_stream ON signals (conversation_id, stream) WHERE stream <> '';
