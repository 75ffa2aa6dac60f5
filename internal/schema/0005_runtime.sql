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
