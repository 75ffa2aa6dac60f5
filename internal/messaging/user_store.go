package messaging

import (
	"errors"

	"parley/internal/api"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// NewUser is what a user is made of.
type NewUser struct {
	Name, PictureURL *string
	Tags             map[string]string // as the caller names them
	InstallationID   string            // the installation the user belongs to
}

// AddUser makes a user.
func (s *Service) AddUser(tx *sqldb.Tx, c Caller, in NewUser) (*User, error) {
	set, err := newTags(c, tag.User, in.Tags)
	if err != nil {
		return nil, err
	}
	now := s.now()
	u := &User{
		ID: id.At("user", now), CreatedAt: api.Time(now), UpdatedAt: api.Time(now), Name: in.Name, PictureURL: in.PictureURL,
		BotID: c.Bot.ID, InstallationID: in.InstallationID, AllTags: set,
	}
	if _, err := sqldb.Insert(tx, "users", u); err != nil {
		return nil, err
	}
	return u.As(c), writeTags(tx, entity{c.Bot.ID, tag.User, u.ID, now}, nil, set)
}

// getOrAddUser finds the caller's user with the same tags, or makes one.
func (s *Service) getOrAddUser(tx *sqldb.Tx, c Caller, in NewUser, key discriminator) (u *User, err error) {
	if err := key.lock(tx, c, tag.User, in.InstallationID); err != nil {
		return nil, err
	}
	if u, err := s.findUser(tx, c, in, key); err != nil || u != nil {
		return u, err
	}
	return s.AddUser(tx, c, in)
}

// findUser finds the user a get-or-create means, nil if there is none.
func (s *Service) findUser(q sqldb.Q, c Caller, in NewUser, key discriminator) (*User, error) {
	ids, err := key.candidates(q, c, tag.User)
	if err != nil {
		return nil, err
	}
	for _, userID := range ids {
		u, err := s.user(q, c, userID)
		if err != nil || u != nil && u.InstallationID == in.InstallationID && key.matches(c, u.AllTags) {
			return u, err
		}
	}
	return nil, nil
}

// user reads one user the caller may see, nil if there is none.
func (s *Service) user(q sqldb.Q, c Caller, userID string) (*User, error) {
	u, err := sqldb.One[User](q, "users", "WHERE id = $1 AND bot_id = $2", userID, c.Bot.ID)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && !c.sees(u.InstallationID) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return u.As(c), nil
}

// User reads one user the caller may see; what is missing is a client's error.
func (s *Service) User(q sqldb.Q, c Caller, userID string) (*User, error) {
	u, err := s.user(q, c, userID)
	if err == nil && u == nil {
		err = c.missing("User", userID)
	}
	return u, err
}

// userReference is User for an id in a body or query.
func (s *Service) userReference(q sqldb.Q, c Caller, userID string) (*User, error) {
	u, err := s.user(q, c, userID)
	if err == nil && u == nil {
		err = c.dangling("User", userID)
	}
	return u, err
}

// Users reads several users of the bot by id, in no order; what is missing is left out.
func (s *Service) Users(q sqldb.Q, c Caller, ids []string) ([]*User, error) {
	return manyByID[User](q, "users", c, ids, func(u *User) { u.As(c) })
}

// UserChange is what changes on a user; nil leaves alone, an empty text removes.
type UserChange struct {
	Name, PictureURL *string
	Tags             map[string]string
}

// ChangeUser changes a user.
func (s *Service) ChangeUser(tx *sqldb.Tx, c Caller, userID string, in UserChange) (*User, error) {
	u, err := sqldb.One[User](tx, "users", "WHERE id = $1 AND bot_id = $2 {for_update}", userID, c.Bot.ID)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && !c.sees(u.InstallationID) {
		return nil, c.missing("User", userID)
	}
	if err != nil {
		return nil, err
	}
	tx.AfterCommit(func() { s.users.Drop(userID) })
	u.Name, u.PictureURL = changed(u.Name, in.Name), changed(u.PictureURL, in.PictureURL)
	before := u.AllTags.Clone()
	if err := applyTags(c, tag.User, u.AllTags, in.Tags); err != nil {
		return nil, err
	}
	u.UpdatedAt = api.Time(max(s.now(), int64(u.CreatedAt)))
	if err := sqldb.Update(tx, "users", u, sqldb.Column{Name: "id", Field: &u.ID}); err != nil {
		return nil, err
	}
	return u.As(c), writeTags(tx, entity{c.Bot.ID, tag.User, u.ID, int64(u.CreatedAt)}, before, u.AllTags)
}

func changed(old, change *string) *string {
	switch {
	case change == nil:
		return old
	case *change == "":
		return nil
	}
	return change
}

// DropUser deletes a user. Its messages stay; what else hangs on it is swept.
func (s *Service) DropUser(tx *sqldb.Tx, c Caller, userID string) error {
	if userID == c.Bot.ID {
		return errBotUser
	}
	if _, err := s.User(tx, c, userID); err != nil {
		return err
	}
	if err := sqldb.Delete(tx, "users", "WHERE id = $1", userID); errors.Is(err, sqldb.ErrNoRow) {
		return c.missing("User", userID) // somebody else was faster
	} else if err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM tags WHERE entity = $1", userID); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		s.users.Drop(userID)
		s.Ended("user:" + userID)
	})
	return s.bury(tx, tag.User, c.Bot.ID, userID)
}

// CreateBotUser makes the user a bot speaks as.
func (s *Service) CreateBotUser(tx *sqldb.Tx, botID, name string, at int64) error {
	u := &User{ID: botID, BotID: botID, Name: &name, AllTags: tag.Set{}, CreatedAt: api.Time(at), UpdatedAt: api.Time(at)}
	_, err := sqldb.Insert(tx, "users", u)
	return err
}
