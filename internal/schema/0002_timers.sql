-- ── timers ───────────────────────────────────────────────────────────────────
-- What is to happen at a time: an event or message that was scheduled, a state that expires, a workflow that runs out.
-- The row goes in the transaction that makes it happen.
CREATE TABLE timers (
  kind     TEXT NOT NULL, -- who knows what to do
  id       TEXT NOT NULL, -- of the thing the timer is for
  bot_id   TEXT NOT NULL,
  line     TEXT NOT NULL, -- timers of one line fire one after the other; '' = in no order with others
  due      BIGINT NOT NULL,
  failures BIGINT NOT NULL, -- times it fell due and could not be carried out
  PRIMARY KEY (kind, id)
) {without_rowid};
CREATE INDEX timers_due ON timers (due, kind, id);
CREATE INDEX timers_bot ON timers (bot_id, kind, id);
CREATE INDEX timers_line ON timers (line) WHERE line <> '';
