package sqldb

import (
	"database/sql/driver"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// JSON stores what v points to as JSON text and reads it back. A raw message
// (a byte slice type with MarshalJSON) is kept as it is, byte for byte; a nil
// one is the empty text and the empty text reads as the zero value.
func JSON(v any) any { return jsonField{v} }

type jsonField struct{ v any }

// Value implements driver.Valuer.
func (f jsonField) Value() (driver.Value, error) {
	if raw, ok := rawMessage(f.v); ok {
		return string(raw), nil
	}
	b, err := json.Marshal(f.v, json.Deterministic(true), jsontext.PreserveRawStrings(true))
	if err != nil {
		return nil, fmt.Errorf("sqldb: write JSON: %w", err)
	}
	return string(b), nil
}

// Scan implements sql.Scanner.
func (f jsonField) Scan(src any) error {
	var text []byte
	switch s := src.(type) {
	case nil:
	case string:
		text = []byte(s)
	case []byte:
		text = append([]byte(nil), s...)
	default:
		return fmt.Errorf("sqldb: cannot read %T as JSON", src)
	}
	p := reflect.ValueOf(f.v)
	if p.Kind() != reflect.Pointer {
		return fmt.Errorf("sqldb: JSON(%T) is no pointer", f.v)
	}
	if len(text) == 0 {
		p.Elem().SetZero()
		return nil
	}
	if isRaw(p.Type().Elem()) {
		p.Elem().SetBytes(text)
		return nil
	}
	p.Elem().SetZero() // a map or slice that is scanned twice must not keep the first row
	if err := json.Unmarshal(text, f.v); err != nil {
		return fmt.Errorf("sqldb: read JSON: %w", err)
	}
	return nil
}

type jsonMarshaler interface{ MarshalJSON() ([]byte, error) }

var marshalerType = reflect.TypeFor[jsonMarshaler]()

func isRaw(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 && t.Implements(marshalerType)
}

// rawMessage gives the bytes of a raw JSON message or of a pointer to one.
func rawMessage(v any) ([]byte, bool) {
	r := reflect.ValueOf(v)
	if r.Kind() == reflect.Pointer && !r.IsNil() {
		r = r.Elem()
	}
	if !r.IsValid() || !isRaw(r.Type()) {
		return nil, false
	}
	return r.Bytes(), true
}
