package messaging

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

var errBotUser = fault.ReferenceConstraint.New("the bot's own user lives as long as the bot")

func (s *Service) userOps() []api.Op {
	return []api.Op{
		api.Handle("createUser", "POST /v1/chat/users", auth.Runtime, s.createUser, api.Created, api.Doc("Creates a user.")),
		api.Handle("getUser", "GET /v1/chat/users/{id}", auth.Runtime, s.getUser, api.Doc("Returns a user.")),
		api.Handle("listUsers", "GET /v1/chat/users", auth.Runtime, s.listUsers, api.Doc("Lists users, newest first.")),
		api.Handle("getOrCreateUser", "POST /v1/chat/users/get-or-create", auth.Runtime, s.getOrCreateUser, api.Doc("Returns the user with these tags, creating it if there is none.")),
		api.Handle("updateUser", "PUT /v1/chat/users/{id}", auth.Runtime, s.updateUser, api.Doc("Changes a user; an empty or null tag removes it.")),
		api.Handle("deleteUser", "DELETE /v1/chat/users/{id}", auth.Runtime, s.deleteUser, api.Doc("Deletes a user; its messages stay.")),
	}
}

type ref struct {
	ID string `path:"id"`
}

type none struct{}

type userResult struct {
	User *User `json:"user"`
}

type createUserInput struct {
	Tags            map[string]string `json:"tags"`
	IntegrationName string            `json:"integrationName,omitempty" max:"200"`
	Name            *string           `json:"name,omitempty" max:"200"`
	PictureURL      *string           `json:"pictureUrl,omitempty" max:"40000"`
}

func (in createUserInput) user(c Caller) (NewUser, error) {
	owner, err := c.ownerNamed(in.IntegrationName)
	return NewUser{Name: in.Name, PictureURL: in.PictureURL, Tags: in.Tags, InstallationID: owner}, err
}

func (s *Service) createUser(ctx context.Context, in createUserInput) (userResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return userResult{}, err
	}
	nu, err := in.user(c)
	if err != nil {
		return userResult{}, err
	}
	if userID, err := s.made(ctx, c, nu.InstallationID, "user", wanted{Tags: in.Tags}); err != nil || userID != "" {
		if err != nil {
			return userResult{}, err
		}
		u, err := s.User(s.DB.Reader(ctx), c, userID)
		return userResult{u}, unmade(err, in.IntegrationName, "user", userID)
	}
	if _, err := newTags(c, tag.User, in.Tags); err != nil {
		return userResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (userResult, error) {
		u, err := s.AddUser(tx, c, nu)
		return userResult{u}, err
	})
}

func (s *Service) getUser(ctx context.Context, in ref) (userResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return userResult{}, err
	}
	u, err := s.User(s.DB.Reader(ctx), c, in.ID)
	return userResult{u}, err
}

type getOrCreateUserInput struct {
	Tags               map[string]string `json:"tags"`
	IntegrationName    string            `json:"integrationName,omitempty" max:"200"`
	Name               *string           `json:"name,omitempty" max:"200"`
	PictureURL         *string           `json:"pictureUrl,omitempty" max:"40000"`
	DiscriminateByTags []string          `json:"discriminateByTags,omitempty"`
}

func (s *Service) getOrCreateUser(ctx context.Context, in getOrCreateUserInput) (userResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return userResult{}, err
	}
	find, err := s.userStep(c, in)
	if err != nil {
		return userResult{}, err
	}
	if u, err := find(s.DB.Reader(ctx)); err != nil || u != nil {
		return userResult{u}, err // the ordinary case needs no transaction
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (userResult, error) {
		u, err := find(tx)
		return userResult{u}, err
	})
}

// userStep checks a get-or-create of a user. What it returns finds the user,
// and in a transaction makes it if there is none.
func (s *Service) userStep(c Caller, in getOrCreateUserInput) (func(sqldb.Q) (*User, error), error) {
	nu, err := createUserInput{in.Tags, in.IntegrationName, in.Name, in.PictureURL}.user(c)
	if err != nil {
		return nil, err
	}
	if _, err := newTags(c, tag.User, in.Tags); err != nil {
		return nil, err
	}
	key, err := discriminators(c, in.Tags, in.DiscriminateByTags)
	if err != nil {
		return nil, err
	}
	return func(q sqldb.Q) (*User, error) {
		if tx, ok := q.(*sqldb.Tx); ok {
			return s.getOrAddUser(tx, c, nu, key)
		}
		return s.findUser(q, c, nu, key)
	}, nil
}

type updateUserInput struct {
	ID         string                          `path:"id"`
	Tags       map[string]api.Nullable[string] `json:"tags,omitempty"`
	Name       api.Nullable[string]            `json:"name,omitempty" max:"200"`
	PictureURL api.Nullable[string]            `json:"pictureUrl,omitempty" max:"40000"`
}

func (s *Service) updateUser(ctx context.Context, in updateUserInput) (userResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return userResult{}, err
	}
	if _, err := s.User(s.DB.Reader(ctx), c, in.ID); err != nil {
		return userResult{}, err
	}
	change := UserChange{Name: text(in.Name), PictureURL: text(in.PictureURL), Tags: values(in.Tags)}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (userResult, error) {
		u, err := s.ChangeUser(tx, c, in.ID, change)
		return userResult{u}, err
	})
}

func (s *Service) deleteUser(ctx context.Context, in ref) (none, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return none{}, err
	}
	if _, err := s.User(s.DB.Reader(ctx), c, in.ID); err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.DropUser(tx, c, in.ID)
	})
}

type listUsersInput struct {
	page.Query
	ConversationID string            `query:"conversationId" format:"id"`
	Tags           map[string]string `query:"tags"`
	AfterDate      *api.Time         `query:"afterDate"`
	BeforeDate     *api.Time         `query:"beforeDate"`
	RangeField     string            `query:"rangeField" enum:"updatedAt,createdAt"`
	SortField      string            `query:"sortField" enum:"updatedAt,createdAt"`
	SortDirection  string            `query:"sortDirection" enum:"asc,desc"`
}

type usersResult struct {
	Users []*User   `json:"users"`
	Meta  page.Meta `json:"meta"`
}

func (s *Service) listUsers(ctx context.Context, in listUsersInput) (usersResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return usersResult{}, err
	}
	q := s.DB.Reader(ctx)
	l := newListing("users", c, in.SortField, in.SortDirection)
	l.And("e.id <> e.bot_id")
	if in.ConversationID != "" {
		if _, err := s.reference(q, c, in.ConversationID); err != nil {
			return usersResult{}, err
		}
		l.And("e.id IN (SELECT user_id FROM participants WHERE conversation_id = ?)", in.ConversationID)
	}
	l.tagged(tag.User, in.Tags)
	l.between(in.RangeField, in.AfterDate, in.BeforeDate)
	var out usersResult
	out.Users, out.Meta, err = list(q, l, in.Query, func(u *User) (int64, string) {
		u.As(c)
		return l.at(int64(u.CreatedAt), int64(u.UpdatedAt)), u.ID
	})
	return out, err
}
