package chatapi

import "parley/internal/api"

// payload is the content of a message as chat clients write it: an object whose
// member type says what it is. It is kept as it came, with members beyond the
// known ones: the structs below only say what must be there.
type payload struct{ api.Raw }

// Union implements api.Union.
func (payload) Union() api.Variants {
	return api.Variants{By: "type", Types: append(append([]api.Variant{}, flat...),
		api.VariantOf[carousel]("carousel"), api.VariantOf[card]("card"), api.VariantOf[choice]("choice"),
		api.VariantOf[choice]("dropdown"), api.VariantOf[bloc]("bloc"))}
}

// item is a part of a bloc: one of the payloads that hold no others.
type item struct{ api.Raw }

// Union implements api.Union.
func (item) Union() api.Variants { return api.Variants{By: "type", Types: flat} }

var flat = []api.Variant{
	api.VariantOf[text]("text"), api.VariantOf[markdown]("markdown"), api.VariantOf[image]("image"), api.VariantOf[audio]("audio"),
	api.VariantOf[video]("video"), api.VariantOf[file]("file"), api.VariantOf[location]("location"),
}

type (
	text struct {
		Type  string    `json:"type"`
		Text  string    `json:"text" min:"1"`
		Extra api.Extra `json:",embed"`
	}
	markdown struct {
		Type     string    `json:"type"`
		Markdown string    `json:"markdown" min:"1"`
		Extra    api.Extra `json:",embed"`
	}
	image struct {
		Type     string    `json:"type"`
		ImageURL string    `json:"imageUrl" min:"1"`
		Extra    api.Extra `json:",embed"`
	}
	audio struct {
		Type     string    `json:"type"`
		AudioURL string    `json:"audioUrl" min:"1"`
		Extra    api.Extra `json:",embed"`
	}
	video struct {
		Type     string    `json:"type"`
		VideoURL string    `json:"videoUrl" min:"1"`
		Extra    api.Extra `json:",embed"`
	}
	file struct {
		Type    string    `json:"type"`
		FileURL string    `json:"fileUrl" min:"1"`
		Title   string    `json:"title,omitempty" min:"1"`
		Extra   api.Extra `json:",embed"`
	}
	location struct {
		Type      string    `json:"type"`
		Latitude  float64   `json:"latitude"`
		Longitude float64   `json:"longitude"`
		Address   string    `json:"address,omitempty"`
		Title     string    `json:"title,omitempty"`
		Extra     api.Extra `json:",embed"`
	}
	action struct {
		Action string    `json:"action" enum:"postback,url,say"`
		Label  string    `json:"label" min:"1"`
		Value  string    `json:"value" min:"1"`
		Extra  api.Extra `json:",embed"`
	}
	card struct {
		Type     string    `json:"type" enum:"card"`
		Title    string    `json:"title" min:"1"`
		Subtitle string    `json:"subtitle,omitempty" min:"1"`
		ImageURL string    `json:"imageUrl,omitempty" min:"1"`
		Actions  []action  `json:"actions"`
		Extra    api.Extra `json:",embed"`
	}
	carousel struct {
		Type  string    `json:"type"`
		Items []card    `json:"items"`
		Extra api.Extra `json:",embed"`
	}
	option struct {
		Label string    `json:"label" min:"1"`
		Value string    `json:"value" min:"1"`
		Extra api.Extra `json:",embed"`
	}
	choice struct {
		Type    string    `json:"type"`
		Text    string    `json:"text" min:"1"`
		Options []option  `json:"options"`
		Extra   api.Extra `json:",embed"`
	}
	bloc struct {
		Type  string    `json:"type"`
		Items []item    `json:"items"`
		Extra api.Extra `json:",embed"`
	}
)

// fromChat splits a chat payload into the type and payload of the Runtime API,
// where the type stands outside, the parts of a bloc are {type, payload}, the
// cards of a carousel have no type, and metadata is a member of the payload.
func fromChat(in payload, metadata api.Object) (typ string, out api.Object) {
	typ, _ = in.Member("type").Text()
	var b api.Builder
	for name, v := range api.Object(in.Raw).Members() {
		switch {
		case name == "type":
		case name == "items" && typ == "bloc":
			b.Add(name, mapItems(v, nest))
		case name == "items" && typ == "carousel":
			b.Add(name, mapItems(v, untype))
		default:
			b.Add(name, v)
		}
	}
	if metadata != nil {
		b.Add("metadata", api.Raw(metadata))
	}
	return typ, b.Object()
}

// toChat is the other way round. Types that chat clients do not know are shown
// as they are.
func toChat(typ string, in api.Object) (out, metadata api.Object) {
	var b api.Builder
	b.AddText("type", typ)
	for name, v := range in.Members() {
		switch {
		case name == "type":
		case name == "metadata" && isObject(v):
			metadata = api.Object(v)
		case name == "items" && typ == "bloc":
			b.Add(name, mapItems(v, flatten))
		case name == "items" && typ == "carousel":
			b.Add(name, mapItems(v, retype))
		default:
			b.Add(name, v)
		}
	}
	return b.Object(), metadata
}

// mapItems applies f to every object of an array and leaves anything else alone.
func mapItems(v api.Raw, f func(api.Object) api.Object) api.Raw {
	if len(v) == 0 || v[0] != '[' {
		return v
	}
	out := append(make(api.Raw, 0, len(v)+64), '[')
	for it := range v.Items() {
		if len(out) > 1 {
			out = append(out, ',')
		}
		if isObject(it) {
			it = api.Raw(f(api.Object(it)))
		}
		out = append(out, it...)
	}
	return append(out, ']')
}

// nest makes {type, payload} of {type, …}.
func nest(in api.Object) api.Object {
	var b api.Builder
	b.Add("type", in.Member("type"))
	b.Add("payload", api.Raw(untype(in)))
	return b.Object()
}

// flatten makes {type, …} of {type, payload}; what has another form is left alone.
func flatten(in api.Object) api.Object {
	typ, inner := in.Member("type"), in.Member("payload")
	if typ == nil || !isObject(inner) {
		return in
	}
	return typed(typ, api.Object(inner))
}

// untype takes the type out: the Runtime API has none on the cards of a carousel.
func untype(in api.Object) api.Object {
	var b api.Builder
	for name, v := range in.Members() {
		if name != "type" {
			b.Add(name, v)
		}
	}
	return b.Object()
}

// retype puts the type of a carousel's card back.
func retype(in api.Object) api.Object { return typed(api.Raw(`"card"`), in) }

// typed puts a type in front of the other members.
func typed(typ api.Raw, in api.Object) api.Object {
	var b api.Builder
	b.Add("type", typ)
	for name, v := range in.Members() {
		if name != "type" {
			b.Add(name, v)
		}
	}
	return b.Object()
}

func isObject(v api.Raw) bool { return len(v) > 0 && v[0] == '{' }

// asObject is v, or the empty object where v is something else.
func asObject(v api.Raw) api.Object {
	if !isObject(v) {
		return api.Object("{}")
	}
	return api.Object(v)
}
