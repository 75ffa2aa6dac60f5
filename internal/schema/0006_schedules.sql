-- ── what happens at a time ───────────────────────────────────────────────────
-- A scheduled event is a row of events that has no place in its lane yet (lane_seq 0), and a timer. When it fires it
-- gets its place; its id and creation stay.
ALTER TABLE events ADD COLUMN pending_at BIGINT NOT NULL DEFAULT 0; -- when it fired; 0 = it was pending from the start

-- A message that is to be made. It gets the id that is promised here. Its tags stand in tags under the kind 'scheduled'.
CREATE TABLE scheduled_messages (
  bot_id          TEXT NOT NULL,
  id              TEXT NOT NULL,
  installation_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  user_id         TEXT NOT NULL,
  direction       TEXT NOT NULL, -- incoming: the installation makes it, outgoing: the bot
  type            TEXT NOT NULL,
  payload         TEXT NOT NULL,
  tags            TEXT NOT NULL,
  origin          TEXT NOT NULL,
  due             BIGINT NOT NULL,
  PRIMARY KEY (bot_id, id)
);
CREATE INDEX scheduled_messages_conversation ON scheduled_messages (conversation_id);

ALTER TABLE states ADD COLUMN expiry BIGINT NOT NULL DEFAULT 0; -- idle milliseconds after which it is removed; 0 = never
ALTER TABLE states ADD COLUMN expiry_set BOOLEAN NOT NULL DEFAULT FALSE; -- by a request; otherwise it is what the definition declares

-- What a bot's definition says of its recurring events, and what they have met with. The timer has the same id.
CREATE TABLE recurring_events (
  id                  TEXT PRIMARY KEY,
  bot_id              TEXT NOT NULL,
  name                TEXT NOT NULL,
  cron                TEXT NOT NULL,
  type                TEXT NOT NULL,
  payload             TEXT NOT NULL,
  failed_attempts     BIGINT NOT NULL, -- in a row
  last_failure_reason TEXT NOT NULL
);
CREATE UNIQUE INDEX recurring_events_name ON recurring_events (bot_id, name);
