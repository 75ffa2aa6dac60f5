-- ── what proves where a request comes from ───────────────────────────────────
-- The secret that signs calls to a bot or an integration. While it replaces another one, both sign.
CREATE TABLE signing_secrets (
  owner       TEXT PRIMARY KEY, -- a bot's id; WORKSPACE/NAME of an integration, one for all its versions
  secret      {bytes} NOT NULL, -- sealed with the master key
  created_at  BIGINT NOT NULL,
  previous    {bytes} NOT NULL, -- the one before, sealed; empty = none
  previous_at BIGINT NOT NULL,  -- when that was made
  retires_at  BIGINT NOT NULL   -- when that ceases to sign
);
INSERT INTO signing_secrets (owner, secret, created_at, previous, previous_at, retires_at)
  SELECT id, signing_secret, created_at, CAST('' AS {bytes}), 0, 0 FROM bots;
ALTER TABLE bots DROP COLUMN signing_secret;
