-- Integrations that run outside Parley. One row is one version; what Parley brings along has none.
CREATE TABLE integrations (
  id           TEXT PRIMARY KEY,
  workspace_id TEXT NOT NULL,
  name         TEXT NOT NULL,
  version      TEXT NOT NULL,
  dev          BOOLEAN NOT NULL,
  visibility   TEXT NOT NULL, -- private, unlisted, public
  url          TEXT NOT NULL,
  title        TEXT NOT NULL,
  description  TEXT NOT NULL,
  icon         TEXT NOT NULL, -- base64
  readme       TEXT NOT NULL, -- base64
  definition   TEXT NOT NULL, -- channels, events, actions, states…: JSON as the client sent it
  secrets      {bytes} NOT NULL, -- a JSON object, sealed with the master key
  created_at   BIGINT NOT NULL,
  updated_at   BIGINT NOT NULL
);
-- What is under development has a version too, but is found by its id alone.
CREATE UNIQUE INDEX integrations_version ON integrations (workspace_id, name, version) WHERE NOT dev;
CREATE INDEX integrations_created ON integrations (workspace_id, created_at, id);
CREATE INDEX integrations_updated ON integrations (workspace_id, updated_at, id);
CREATE INDEX integrations_shared ON integrations (name) WHERE visibility <> 'private';
-- Who has a version installed; which keys it has.
CREATE INDEX installations_integration ON installations (integration_id);
CREATE INDEX tokens_integration ON tokens (integration_id) WHERE integration_id <> '';
