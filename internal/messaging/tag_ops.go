package messaging

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/page"
	"parley/internal/tag"
)

func (s *Service) tagOps() []api.Op {
	return []api.Op{
		api.Handle("listTagValues", "GET /v1/chat/tags/{key}/values", auth.Runtime, s.listTagValues, api.Doc("Lists the values that a tag has on users, conversations or messages, each once, in the order of their bytes.")),
	}
}

type listTagValuesInput struct {
	page.Query
	Key  string `path:"key"`
	Type string `query:"type,required" enum:"user,conversation,message"`
}

type tagValue struct {
	Value string `json:"value"`
}

type tagValuesResult struct {
	Tags []tagValue `json:"tags"`
	Meta page.Meta  `json:"meta"`
}

// listTagValues lists what a tag of the caller's view is set to. As in a filter,
// a key that nobody declares or that the caller cannot see has no values.
func (s *Service) listTagValues(ctx context.Context, in listTagValuesInput) (tagValuesResult, error) {
	out := tagValuesResult{Tags: []tagValue{}}
	c, err := s.Caller(ctx)
	if err != nil {
		return out, err
	}
	ref := c.tag(in.Type, in.Key)
	if err := tag.CheckKey(ref.Key); err != nil {
		return out, err
	}
	pages, err := in.Open("tags", page.OldestFirst, c.Bot.ID, in.Type, ref.Owner, ref.Key)
	if err != nil {
		return out, err
	}
	q := s.DB.Reader(ctx)
	values, err := tagValues(q, c.Bot.ID, in.Type, ref, pages.After().ID, page.Size+1)
	if err != nil {
		return out, err
	}
	if values, out.Meta, err = page.Cut(pages, values, func(v string) (int64, string) { return 0, v }); err != nil {
		return out, err
	}
	for _, v := range values {
		if v, err = s.whole(q, c.Bot.ID, in.Type, ref, v); err != nil {
			return out, err
		}
		if v != "" {
			out.Tags = append(out.Tags, tagValue{v})
		}
	}
	return out, nil
}
