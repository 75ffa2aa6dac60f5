package messaging

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"unicode/utf8"

	"parley/internal/sqldb"
	"parley/internal/tag"
)

// maxIndexed is the number of bytes up to which the tags table holds a value as
// it is: all of 500 characters. PostgreSQL's index takes little more.
const maxIndexed = 500 * utf8.UTFMax

// indexed is the form of a value in the tags table. A longer one is cut and
// told apart by its hash; it is then longer than any that is not.
func indexed(value string) string {
	if len(value) <= maxIndexed {
		return value
	}
	cut := maxIndexed
	for !utf8.RuneStart(value[cut]) {
		cut--
	}
	sum := sha256.Sum256([]byte(value))
	return value[:cut] + hex.EncodeToString(sum[:])
}

// tagValues reads the next values of a tag in their indexed form. It jumps from
// value to value in the index, so that one which a million entities share costs
// one step.
func tagValues(q sqldb.Q, botID, kind string, ref tag.Ref, after string, limit int) ([]string, error) {
	return column(q, `WITH RECURSIVE found (value, n) AS (
			SELECT (SELECT t.value FROM tags t WHERE t.bot_id = $1 AND t.kind = $2 AND t.owner = $3 AND t.key = $4 AND t.value > $5 ORDER BY t.value LIMIT 1), 1
			UNION ALL
			SELECT (SELECT t.value FROM tags t WHERE t.bot_id = $1 AND t.kind = $2 AND t.owner = $3 AND t.key = $4 AND t.value > found.value ORDER BY t.value LIMIT 1), found.n + 1
			FROM found WHERE found.value IS NOT NULL AND found.n < $6
		) SELECT value FROM found WHERE value IS NOT NULL ORDER BY n`, botID, kind, ref.Owner, ref.Key, after, limit)
}

// whole is the value behind its indexed form, "" if no entity has it any more.
func (s *Service) whole(q sqldb.Q, botID, kind string, ref tag.Ref, value string) (string, error) {
	if len(value) <= maxIndexed {
		return value, nil
	}
	entity, err := firstTagged(q, botID, kind, ref, value)
	if err != nil || entity == "" {
		return "", err
	}
	one, err := sqldb.One[tagged](q, kind+"s", "WHERE bot_id = $1 AND id = $2", botID, entity)
	if errors.Is(err, sqldb.ErrNoRow) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return one.Tags[ref.Owner][ref.Key], nil
}

// tagged is what users, conversations and messages have in common.
type tagged struct{ Tags tag.Set }

// Columns binds the one column that is read.
func (t *tagged) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "tags", Field: sqldb.JSON(&t.Tags)}}
}
