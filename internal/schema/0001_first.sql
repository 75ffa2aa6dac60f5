-- Times are milliseconds since the epoch, ids TEXT, '' stands for "none" where a column is part of a key.

-- ── workspace ────────────────────────────────────────────────────────────────
CREATE TABLE accounts (
  id           TEXT PRIMARY KEY,
  email        TEXT NOT NULL,
  display_name TEXT NOT NULL,
  created_at   BIGINT NOT NULL
);
CREATE TABLE workspaces (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  handle     TEXT NOT NULL,
  owner_id   TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE TABLE members (
  workspace_id TEXT NOT NULL,
  account_id   TEXT NOT NULL,
  role         TEXT NOT NULL,
  created_at   BIGINT NOT NULL,
  PRIMARY KEY (workspace_id, account_id)
);
CREATE INDEX members_account ON members (account_id);
-- A credential: kind is pat, bak or iak; hash is the hex SHA-256 of its text, which is stored nowhere.
CREATE TABLE tokens (
  id             TEXT PRIMARY KEY,
  kind           TEXT NOT NULL,
  hash           TEXT NOT NULL,
  account_id     TEXT NOT NULL,
  workspace_id   TEXT NOT NULL,
  bot_id         TEXT NOT NULL,
  integration_id TEXT NOT NULL,
  note           TEXT NOT NULL,
  created_at     BIGINT NOT NULL,
  expires_at     BIGINT NOT NULL -- 0 = never
);
CREATE UNIQUE INDEX tokens_hash ON tokens (hash);
CREATE INDEX tokens_account ON tokens (account_id, created_at, id);

-- ── bot ──────────────────────────────────────────────────────────────────────
CREATE TABLE bots (
  id             TEXT PRIMARY KEY,
  workspace_id   TEXT NOT NULL,
  name           TEXT NOT NULL,
  description    TEXT NOT NULL,
  dev            BOOLEAN NOT NULL,
  builtin        TEXT NOT NULL, -- name of the Go bot behind it, '' for one at url
  url            TEXT NOT NULL,
  definition     TEXT NOT NULL, -- states, events, actions, tags…: JSON as the client sent it
  tags           TEXT NOT NULL,
  configuration  {bytes} NOT NULL, -- sealed with the master key
  signing_secret {bytes} NOT NULL, -- sealed with the master key
  created_by     TEXT NOT NULL,
  created_at     BIGINT NOT NULL,
  updated_at     BIGINT NOT NULL,
  deployed_at    BIGINT NOT NULL  -- 0 = never
);
CREATE INDEX bots_workspace ON bots (workspace_id, created_at, id);
CREATE INDEX bots_updated ON bots (workspace_id, updated_at, id);
-- One integration in one bot under an alias. A removed installation keeps its row: conversations still name its alias,
-- and installing the same integration under the same alias revives it with its webhook id.
CREATE TABLE installations (
  id                 TEXT PRIMARY KEY,
  bot_id             TEXT NOT NULL,
  alias              TEXT NOT NULL,
  integration_id     TEXT NOT NULL, -- a version id: changes on upgrade
  name               TEXT NOT NULL,
  version            TEXT NOT NULL,
  webhook_id         TEXT NOT NULL,
  enabled            BOOLEAN NOT NULL,
  removed            BOOLEAN NOT NULL,
  configuration      {bytes} NOT NULL, -- sealed with the master key
  configuration_type TEXT NOT NULL,
  disabled_channels  TEXT NOT NULL,
  identifier         TEXT NOT NULL,
  status             TEXT NOT NULL,
  status_reason      TEXT NOT NULL,
  registration_seq      BIGINT NOT NULL, -- in its lane, of the newest call that registers or unregisters it
  registration_attempts BIGINT NOT NULL,
  register_every        TEXT NOT NULL,   -- hourly, daily, …; '' = only when it changes
  created_at         BIGINT NOT NULL,
  updated_at         BIGINT NOT NULL
);
CREATE UNIQUE INDEX installations_alias ON installations (bot_id, alias);
CREATE UNIQUE INDEX installations_webhook ON installations (webhook_id);

-- ── messaging ────────────────────────────────────────────────────────────────
-- installation_id '' = the bot itself. tags is JSON {owner: {key: value}}, owner = installation id or ''.
CREATE TABLE users (
  id              TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  installation_id TEXT NOT NULL,
  name            TEXT,
  picture_url     TEXT,
  tags            TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL
);
CREATE INDEX users_created ON users (bot_id, created_at, id);
CREATE INDEX users_updated ON users (bot_id, updated_at, id);

CREATE TABLE conversations (
  id              TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  installation_id TEXT NOT NULL,
  channel         TEXT NOT NULL,
  tags            TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL
);
CREATE INDEX conversations_created ON conversations (bot_id, created_at, id);
CREATE INDEX conversations_updated ON conversations (bot_id, updated_at, id);

-- The narrow row every write to a conversation locks first.
CREATE TABLE conversation_heads (
  conversation_id TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  installation_id TEXT NOT NULL,
  message_seq     BIGINT NOT NULL, -- messages so far, gap-free in the order of arrival
  signal_pos      BIGINT NOT NULL, -- signals so far, the position listeners resume from
  last_at         BIGINT NOT NULL  -- createdAt of the newest message; the next one is at least 1 ms later
) {without_rowid};

CREATE TABLE participants (
  conversation_id TEXT NOT NULL,
  user_id         TEXT NOT NULL,
  bot_id          TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, user_id)
) {without_rowid};
CREATE INDEX participants_user ON participants (user_id, conversation_id);

CREATE TABLE messages (
  bot_id          TEXT NOT NULL,
  id              TEXT NOT NULL,
  installation_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  user_id         TEXT NOT NULL,
  direction       TEXT NOT NULL,
  type            TEXT NOT NULL,
  payload         TEXT NOT NULL,
  tags            TEXT NOT NULL,
  origin          TEXT NOT NULL,
  seq             BIGINT NOT NULL, -- 0 = imported
  signal_pos      BIGINT NOT NULL, -- 0 = imported, never signalled
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL,
  PRIMARY KEY (bot_id, id) -- ids begin with their time: this is also the order of a bot's messages
);
CREATE INDEX messages_conversation ON messages (conversation_id, created_at, id);

-- Signals other than message_created, which is read from the messages themselves.
CREATE TABLE signals (
  conversation_id TEXT NOT NULL,
  pos             BIGINT NOT NULL,
  type            TEXT NOT NULL,
  data            TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, pos)
) {without_rowid};
CREATE INDEX signals_created ON signals (created_at);

-- A pending event is the outbox entry to its bot. The payload of a message_created event is put together
-- from the message, its conversation and its user when it is read.
CREATE TABLE events (
  bot_id          TEXT NOT NULL,
  id              TEXT NOT NULL,
  installation_id TEXT NOT NULL, -- whose event type it is; '' = the bot's own or the system's
  type            TEXT NOT NULL,
  payload         TEXT NOT NULL, -- '' for message_created
  conversation_id TEXT NOT NULL,
  user_id         TEXT NOT NULL,
  message_id      TEXT NOT NULL,
  workflow_id     TEXT NOT NULL,
  status          TEXT NOT NULL,
  failure_reason  TEXT NOT NULL,
  lane            TEXT NOT NULL,
  lane_seq        BIGINT NOT NULL,
  attempts        BIGINT NOT NULL,
  created_at      BIGINT NOT NULL,
  PRIMARY KEY (bot_id, id) -- as for messages
) {without_rowid};
-- Of a lane the next entry; of a conversation, which is a lane, all its events.
CREATE INDEX events_lane ON events (lane, lane_seq);
CREATE INDEX events_status ON events (bot_id, status, id) WHERE status <> 'processed';

-- owner_id is the conversation, user, bot, installation… the state hangs on.
CREATE TABLE states (
  id              TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  installation_id TEXT NOT NULL, -- '' = the bot's space, else that installation's
  type            TEXT NOT NULL,
  owner_id        TEXT NOT NULL,
  name            TEXT NOT NULL,
  payload         TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL
);
CREATE UNIQUE INDEX states_key ON states (bot_id, installation_id, type, owner_id, name);
CREATE INDEX states_owner ON states (owner_id);

-- Filters, listTagValues and get-or-create read this; entities carry the same tags as JSON.
CREATE TABLE tags (
  bot_id     TEXT NOT NULL,
  kind       TEXT NOT NULL, -- user, conversation, message, workflow, task
  owner      TEXT NOT NULL,
  key        TEXT NOT NULL,
  value      TEXT NOT NULL,
  created_at BIGINT NOT NULL, -- of the entity, so that filtered pages come in order
  entity     TEXT NOT NULL,
  PRIMARY KEY (bot_id, kind, owner, key, value, created_at, entity)
) {without_rowid};
CREATE INDEX tags_entity ON tags (entity);

-- Deleted things whose rows are removed in chunks by the sweeper.
CREATE TABLE tombstones (
  kind       TEXT NOT NULL,
  id         TEXT NOT NULL,
  bot_id     TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (kind, id)
) {without_rowid};

-- ── delivery ─────────────────────────────────────────────────────────────────
CREATE TABLE lanes (
  key         TEXT PRIMARY KEY,
  endpoint    TEXT NOT NULL,
  seq         BIGINT NOT NULL, -- sequence of the newest entry
  done        BIGINT NOT NULL, -- no entry up to here is pending
  ephemeral   BOOLEAN NOT NULL, -- removed when it has nothing to do
  due         BIGINT NOT NULL, -- 9223372036854775807 = nothing to do
  lease_until BIGINT NOT NULL, -- 0 = free
  owner       TEXT NOT NULL
) {without_rowid};
CREATE INDEX lanes_due ON lanes (due) WHERE due < 9223372036854775807;
CREATE TABLE breakers (
  endpoint   TEXT PRIMARY KEY,
  failures   BIGINT NOT NULL,
  open_until BIGINT NOT NULL,
  reason     TEXT NOT NULL,
  updated_at BIGINT NOT NULL
) {without_rowid};
-- One row for each try at a delivery.
CREATE TABLE attempts (
  work_id     TEXT NOT NULL,
  number      BIGINT NOT NULL,
  endpoint    TEXT NOT NULL,
  outcome     TEXT NOT NULL,
  status      BIGINT NOT NULL, -- HTTP status, 0 = none
  reason      TEXT NOT NULL,
  started_at  BIGINT NOT NULL,
  duration_ms BIGINT NOT NULL,
  PRIMARY KEY (work_id, number)
) {without_rowid};
CREATE INDEX attempts_started ON attempts (started_at);

-- ── idempotency and leases ───────────────────────────────────────────────────
CREATE TABLE idempotency (
  scope      TEXT NOT NULL, -- principal and operation
  key        TEXT NOT NULL,
  request    TEXT NOT NULL, -- hash of what was asked
  answer     TEXT NOT NULL, -- JSON; '' = too large to keep
  created_at BIGINT NOT NULL,
  PRIMARY KEY (scope, key)
) {without_rowid};
CREATE INDEX idempotency_created ON idempotency (created_at);
CREATE TABLE leases (
  name    TEXT PRIMARY KEY,
  holder  TEXT NOT NULL,
  until   BIGINT NOT NULL
) {without_rowid};
