package api

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Raw is any JSON value, kept as it came. The empty Raw is written as null.
type Raw jsontext.Value

// Object is a JSON object, kept as it came. The empty Object is written as {}.
type Object jsontext.Value

// Extra takes the members of an object that its struct does not name. Declare it
// as a field tagged `json:",embed"`; a struct that has one is open.
type Extra = jsontext.Value

// Member finds a member of r, nil if r is no object or does not have it.
func (r Raw) Member(name string) Raw { return member(r, name) }

// Member finds a member of o, nil if o does not have it.
func (o Object) Member(name string) Raw { return member(o, name) }

// Text reads r as a string.
func (r Raw) Text() (text string, ok bool) {
	b, err := jsontext.AppendUnquote(nil, r)
	return string(b), err == nil
}

func member(object []byte, name string) Raw {
	for n, v := range Object(object).Members() {
		if n == name {
			return v
		}
	}
	return nil
}

// MarshalJSONTo implements json.MarshalerTo.
func (r Raw) MarshalJSONTo(e *jsontext.Encoder) error { return writeRaw(e, r, jsontext.Null) }

// MarshalJSONTo implements json.MarshalerTo.
func (o Object) MarshalJSONTo(e *jsontext.Encoder) error {
	if len(o) == 0 {
		return e.WriteValue(jsontext.Value("{}"))
	}
	return e.WriteValue(jsontext.Value(o))
}

func writeRaw(e *jsontext.Encoder, raw []byte, empty jsontext.Token) error {
	if len(raw) == 0 {
		return e.WriteToken(empty)
	}
	return e.WriteValue(raw)
}

// MarshalJSON implements json.Marshaler for packages that do not stream.
func (r Raw) MarshalJSON() ([]byte, error) { return orElse(r, "null"), nil }

// MarshalJSON implements json.Marshaler for packages that do not stream.
func (o Object) MarshalJSON() ([]byte, error) { return orElse(o, "{}"), nil }

func orElse(raw []byte, empty string) []byte {
	if len(raw) == 0 {
		return []byte(empty)
	}
	return raw
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (r *Raw) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	*r = Raw(v.Clone())
	return err
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (o *Object) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	return o.UnmarshalJSON(v)
}

// UnmarshalJSON implements json.Unmarshaler for packages that do not stream.
func (r *Raw) UnmarshalJSON(b []byte) error {
	*r = bytes.Clone(b)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler for packages that do not stream.
func (o *Object) UnmarshalJSON(b []byte) error {
	if jsontext.Value(b).Kind() != '{' {
		return errors.New("api: not a JSON object")
	}
	*o = bytes.Clone(b)
	return nil
}

// Nullable is a member that may be absent, null or a value, and means
// something different each time.
type Nullable[T any] struct {
	Set   bool // the member was there
	Null  bool // and it was null
	Value T
}

// Some is the Nullable that holds v.
func Some[T any](v T) Nullable[T] { return Nullable[T]{Set: true, Value: v} }

// Pointer is nil unless n holds a value.
func (n Nullable[T]) Pointer() *T {
	if !n.Set || n.Null {
		return nil
	}
	return &n.Value
}

// IsZero reports whether the member was absent; `omitzero` asks it.
func (n Nullable[T]) IsZero() bool { return !n.Set }

// MarshalJSONTo implements json.MarshalerTo.
func (n Nullable[T]) MarshalJSONTo(e *jsontext.Encoder) error {
	if !n.Set || n.Null {
		return e.WriteToken(jsontext.Null)
	}
	return json.MarshalEncode(e, &n.Value)
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (n *Nullable[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*n = Nullable[T]{Set: true}
	if d.PeekKind() == 'n' {
		n.Null = true
		_, err := d.ReadToken()
		return err
	}
	return json.UnmarshalDecode(d, &n.Value)
}

// Time is a moment in milliseconds since the epoch. On the wire it is ISO 8601
// in UTC with three fraction digits, as JavaScript prints it.
type Time int64

// At is the Time of t.
func At(t time.Time) Time { return Time(t.UnixMilli()) }

// Time converts t to the standard type, in UTC.
func (t Time) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

func (t Time) String() string { return string(t.AppendTo(nil)) }

// AppendTo appends the wire form of t to b.
func (t Time) AppendTo(b []byte) []byte {
	u := t.Time()
	year, month, day := u.Date()
	if year < 0 || year > 9999 {
		return u.AppendFormat(b, "2006-01-02T15:04:05.000Z")
	}
	hour, minute, second := u.Clock()
	ms := int(int64(t) % 1000)
	if ms < 0 {
		ms += 1000
	}
	return append(b,
		'0'+byte(year/1000), '0'+byte(year/100%10), '0'+byte(year/10%10), '0'+byte(year%10), '-',
		'0'+byte(month/10), '0'+byte(month%10), '-',
		'0'+byte(day/10), '0'+byte(day%10), 'T',
		'0'+byte(hour/10), '0'+byte(hour%10), ':',
		'0'+byte(minute/10), '0'+byte(minute%10), ':',
		'0'+byte(second/10), '0'+byte(second%10), '.',
		'0'+byte(ms/100), '0'+byte(ms/10%10), '0'+byte(ms%10), 'Z')
}

// layouts are the forms of ISO 8601 that clients send, the likeliest first.
var layouts = []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z07:00", "2006-01-02T15:04Z0700"}

// ParseTime reads an ISO 8601 date and time with an offset. Fractions beyond
// the millisecond are cut off.
func ParseTime(s string) (Time, error) {
	if len(s) <= 40 {
		for _, l := range layouts {
			if t, err := time.Parse(l, s); err == nil {
				return At(t), nil
			}
		}
	}
	return 0, fmt.Errorf("api: %.40q is no ISO 8601 date and time with an offset", s)
}

// MarshalJSONTo implements json.MarshalerTo.
func (t Time) MarshalJSONTo(e *jsontext.Encoder) error {
	b := append(e.AvailableBuffer(), '"')
	b = t.AppendTo(b)
	return e.WriteValue(append(b, '"'))
}

// MarshalJSON implements json.Marshaler for packages that do not stream.
func (t Time) MarshalJSON() ([]byte, error) {
	return append(t.AppendTo([]byte{'"'}), '"'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	s, ok := Raw(b).Text()
	if !ok {
		return errors.New("api: a time must be a string")
	}
	var err error
	*t, err = ParseTime(s)
	return err
}

// Value implements driver.Valuer: columns hold milliseconds.
func (t Time) Value() (driver.Value, error) { return int64(t), nil }
