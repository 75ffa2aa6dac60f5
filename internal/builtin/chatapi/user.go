package chatapi

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/once"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func (s *Service) userOps() []api.Op {
	return []api.Op{
		api.Handle("createUser", "POST /users", auth.Public, s.createUser, api.Created, api.Faults(fault.Unauthorized, fault.Forbidden, fault.AlreadyExists), api.Doc("Creates a chat user and returns its key. Refused where the integration has an encryption key of its own.")),
		api.Handle("getOrCreateUser", "POST /users/get-or-create", auth.Chat, s.getOrCreateUser, api.Created, api.Doc("Returns the user of the key, creating it if there is none.")),
		api.Handle("getUser", "GET /users/me", auth.Chat, s.getUser, api.Doc("Returns the user of the key.")),
		api.Handle("updateUser", "PUT /users/me", auth.Chat, s.updateUser, api.Doc("Changes the user of the key.")),
		api.Handle("deleteUser", "DELETE /users/me", auth.Chat, s.deleteUser, api.Doc("Deletes the user of the key.")),
	}
}

// user is a chat user as chat clients see it.
type user struct {
	ID         string   `json:"id"`
	Name       *string  `json:"name,omitempty"`
	PictureURL *string  `json:"pictureUrl,omitempty"`
	Profile    string   `json:"profile,omitempty"`
	CreatedAt  api.Time `json:"createdAt"`
	UpdatedAt  api.Time `json:"updatedAt"`
}

func (s *Service) viewUser(u *messaging.User) user {
	return user{s.nameOf(u.ID, u.Tags), u.Name, u.PictureURL, u.Tags["profile"], u.CreatedAt, u.UpdatedAt}
}

// user finds a user by the id the client uses, nil if there is none.
func (s *Service) user(ctx context.Context, c messaging.Caller, name string) (*messaging.User, error) {
	real, err := s.resolve(s.DB.Reader(ctx), c, tag.User, name)
	if err != nil || real == "" {
		return nil, err
	}
	return s.Messaging.CachedUser(ctx, c, real)
}

type userResult struct {
	User user `json:"user"`
}

func (s *Service) userResult(u *messaging.User, err error) (userResult, error) {
	if err != nil {
		return userResult{}, err
	}
	return userResult{s.viewUser(u)}, nil
}

type createdUser struct {
	User user   `json:"user"`
	Key  string `json:"key"`
}

// Traits are what a user says about itself. On a change what is absent stays
// as it is, and an empty text removes.
type Traits struct {
	Name       *string `json:"name,omitempty" max:"200"`
	PictureURL *string `json:"pictureUrl,omitempty" max:"40000"`
	Profile    *string `json:"profile,omitempty" max:"1000"`
}

func (t Traits) tags() map[string]string {
	tags := map[string]string{}
	if t.Profile != nil {
		tags["profile"] = *t.Profile
	}
	return tags
}

type createUserInput struct {
	Traits
	ID *string `json:"id,omitempty"`
}

// createUser signs the key for the real id, whatever id was chosen: a chosen
// one is free again once its user is deleted, and the old key must not open the
// next user of that name.
func (s *Service) createUser(ctx context.Context, in createUserInput) (createdUser, error) {
	c, err := s.Messaging.Caller(ctx)
	if err != nil {
		return createdUser{}, err
	}
	door, err := s.installation(ctx, c.Installation.WebhookID)
	if err != nil {
		return createdUser{}, err
	}
	if door.EncryptionKey != "" {
		return createdUser{}, fault.Unauthorized.New("createUser is not available where the chat integration has an encryption key; sign a key yourself and call getOrCreateUser")
	}
	name := ""
	if in.ID != nil {
		name = *in.ID
		if err := s.checkUserName(ctx, c, name); err != nil {
			return createdUser{}, err
		}
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (createdUser, error) {
		u, err := s.addUser(tx, c, name, in.Traits)
		if err != nil {
			return createdUser{}, err
		}
		return createdUser{s.viewUser(u), auth.SignUserKey(s.signingKey(door), u.ID, s.Now())}, nil
	})
}

// checkUserName refuses a chosen id that cannot be had.
func (s *Service) checkUserName(ctx context.Context, c messaging.Caller, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	u, err := s.user(ctx, c, name)
	if err != nil || u != nil {
		return orTaken(err, "User", name)
	}
	return nil
}

// addUser makes a user under a chosen name, "" for none.
func (s *Service) addUser(tx *sqldb.Tx, c messaging.Caller, name string, in Traits) (*messaging.User, error) {
	nu := messaging.NewUser{Name: in.Name, PictureURL: in.PictureURL, Tags: in.tags(), InstallationID: c.Installation.ID}
	if name != "" {
		if taken, err := s.holder(tx, c, tag.User, name); err != nil || taken != "" {
			return nil, orTaken(err, "User", name)
		}
		nu.Tags[fid] = name
	}
	return s.Messaging.AddUser(tx, c, nu)
}

func (s *Service) getOrCreateUser(ctx context.Context, in Traits) (userResult, error) {
	p := auth.From(ctx)
	c, err := s.Messaging.Caller(ctx)
	if err != nil {
		return userResult{}, err
	}
	if p.UserID != "" {
		return s.changeUser(ctx, c, p.UserID, in)
	}
	if err := checkKeyName(p.TokenID); err != nil {
		return userResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (userResult, error) {
		there, err := s.holder(tx, c, tag.User, p.TokenID)
		switch {
		case err != nil:
			return userResult{}, err
		case there != "":
			return s.userResult(s.Messaging.ChangeUser(tx, c, there, in.change()))
		}
		return s.userResult(s.addUser(tx, c, p.TokenID, in))
	})
}

func (t Traits) change() messaging.UserChange {
	return messaging.UserChange{Name: t.Name, PictureURL: t.PictureURL, Tags: t.tags()}
}

// changeUser changes what is given; where nothing is, it only reads.
func (s *Service) changeUser(ctx context.Context, c messaging.Caller, userID string, in Traits) (userResult, error) {
	if in == (Traits{}) {
		return s.userResult(s.Messaging.User(s.DB.Reader(ctx), c, userID))
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (userResult, error) {
		return s.userResult(s.Messaging.ChangeUser(tx, c, userID, in.change()))
	})
}

type none struct{}

func (s *Service) getUser(ctx context.Context, _ none) (userResult, error) {
	return s.updateUser(ctx, Traits{})
}

func (s *Service) updateUser(ctx context.Context, in Traits) (userResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return userResult{}, err
	}
	return s.changeUser(ctx, m.Caller, m.UserID, in)
}

func (s *Service) deleteUser(ctx context.Context, _ none) (none, error) {
	m, err := s.me(ctx)
	if err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		tx.AfterCommit(func() { s.names.forget(m.UserID) })
		err := s.Messaging.DropUser(tx, m.Caller, m.UserID)
		if fault.Is(err, fault.ResourceNotFound) {
			err = noUser() // somebody else was faster
		}
		return none{}, err
	})
}
