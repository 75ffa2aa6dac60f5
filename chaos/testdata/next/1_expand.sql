-- What a next release might begin with: a table and columns of which this one knows nothing. The tables
-- stand in the order in which transactions lock them.
CREATE TABLE next_notes (
  bot_id TEXT NOT NULL,
  id     TEXT NOT NULL,
  note   TEXT NOT NULL,
  PRIMARY KEY (bot_id, id)
);
CREATE INDEX next_notes_note ON next_notes (bot_id, note);
ALTER TABLE bots ADD COLUMN next_note TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN next_note TEXT;
ALTER TABLE conversations ADD COLUMN next_note TEXT;
ALTER TABLE conversation_heads ADD COLUMN next_pos BIGINT NOT NULL DEFAULT 0;
ALTER TABLE participants ADD COLUMN next_seen BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN next_size BIGINT NOT NULL DEFAULT -1; -- of its payload; -1 = written by a program that does not know it
ALTER TABLE lanes ADD COLUMN next_paused BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE events ADD COLUMN next_note TEXT NOT NULL DEFAULT '';
