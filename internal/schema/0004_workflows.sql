-- ── workflows and tasks ──────────────────────────────────────────────────────
-- Both belong to the bot itself. parent_id, conversation_id, user_id and event_id are '' where there is none.
CREATE TABLE workflows (
  id              TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  name            TEXT NOT NULL,
  status          TEXT NOT NULL,
  input           TEXT NOT NULL,
  output          TEXT NOT NULL,
  parent_id       TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  user_id         TEXT NOT NULL,
  event_id        TEXT NOT NULL,   -- the event whose handler works on it
  tries           BIGINT NOT NULL, -- times the bot was told in a row without anything coming of it
  failure_reason  TEXT NOT NULL,
  tags            TEXT NOT NULL,   -- {"": {key: value}}, as for what has several owners
  timeout_at      BIGINT NOT NULL,
  completed_at    BIGINT NOT NULL, -- 0 = not completed
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL
);
CREATE INDEX workflows_created ON workflows (bot_id, created_at, id);
CREATE INDEX workflows_name ON workflows (bot_id, name, created_at, id);
CREATE INDEX workflows_active ON workflows (bot_id, name, created_at, id) WHERE status IN ('pending', 'in_progress', 'listening', 'paused');
CREATE INDEX workflows_conversation ON workflows (conversation_id, created_at, id) WHERE conversation_id <> '';
CREATE INDEX workflows_user ON workflows (user_id, created_at, id) WHERE user_id <> '';
CREATE INDEX workflows_parent ON workflows (parent_id, created_at, id) WHERE parent_id <> '';
CREATE INDEX workflows_event ON workflows (event_id) WHERE event_id <> '';

CREATE TABLE tasks (
  id              TEXT PRIMARY KEY,
  bot_id          TEXT NOT NULL,
  type            TEXT NOT NULL,
  title           TEXT NOT NULL,
  description     TEXT NOT NULL,
  data            TEXT NOT NULL,
  status          TEXT NOT NULL,
  parent_id       TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  user_id         TEXT NOT NULL,
  tags            TEXT NOT NULL,
  timeout_at      BIGINT NOT NULL,
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL
);
CREATE INDEX tasks_created ON tasks (bot_id, created_at, id);
CREATE INDEX tasks_conversation ON tasks (conversation_id, created_at, id);
CREATE INDEX tasks_user ON tasks (user_id, created_at, id) WHERE user_id <> '';
CREATE INDEX tasks_parent ON tasks (parent_id, created_at, id) WHERE parent_id <> '';

ALTER TABLE conversations ADD COLUMN current_task_id TEXT NOT NULL DEFAULT '';

-- Somebody waits for the end of the event: a workflow is bound to it.
ALTER TABLE events ADD COLUMN awaited BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX events_workflow ON events (workflow_id, id) WHERE workflow_id <> '';
