-- What a bot says while it has an event that somebody waits for: the messages of
-- the conversation after one place up to another.
-- replies_from: where the conversation was when the first try began, -1 = none has, 0 = nobody waits.
-- replies_to: where it was when the last try ended.
ALTER TABLE events ADD COLUMN replies_from BIGINT NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN replies_to BIGINT NOT NULL DEFAULT 0;
