-- online
-- What takes long on a large table, while everybody goes on: the sizes of the messages that there are.
CREATE INDEX {concurrently} IF NOT EXISTS messages_unsized ON messages (bot_id, id) WHERE next_size < 0;
-- in chunks of 1000
UPDATE messages SET next_size = LENGTH(payload) WHERE next_size < 0 AND (bot_id, id) IN (SELECT bot_id, id FROM messages WHERE next_size < 0 LIMIT 1000);
CREATE INDEX {concurrently} IF NOT EXISTS messages_size ON messages (bot_id, next_size, id);
