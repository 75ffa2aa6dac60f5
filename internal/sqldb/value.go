package sqldb

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"strings"
	"unicode/utf8"
)

// plain turns an argument into nil, int64, float64, bool, string or []byte.
// Pointers are followed, a nil pointer is NULL, a raw JSON message is text.
func plain(a any) (any, error) {
	switch v := a.(type) {
	case nil, int64, bool, float64, []byte:
		return v, nil
	case string:
		return v, checkText(v)
	case int:
		return int64(v), nil
	case *string:
		if v == nil {
			return nil, nil
		}
		return *v, checkText(*v)
	case *int64:
		if v == nil {
			return nil, nil
		}
		return *v, nil
	case *bool:
		if v == nil {
			return nil, nil
		}
		return *v, nil
	case *[]byte:
		if v == nil {
			return nil, nil
		}
		return *v, nil
	case **string:
		if v == nil {
			return nil, nil
		}
		return plain(*v)
	case driver.Valuer:
		if r := reflect.ValueOf(a); r.Kind() == reflect.Pointer && r.IsNil() {
			return nil, nil
		}
		x, err := v.Value()
		if err != nil {
			return nil, err
		}
		return plain(x)
	}
	return plainKind(reflect.ValueOf(a))
}

func plainKind(r reflect.Value) (any, error) {
	switch r.Kind() {
	case reflect.Pointer:
		if r.IsNil() {
			return nil, nil
		}
		return plain(r.Elem().Interface())
	case reflect.String:
		return r.String(), checkText(r.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return r.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if r.Uint() > math.MaxInt64 {
			return nil, fmt.Errorf("sqldb: %d does not fit a BIGINT", r.Uint())
		}
		return int64(r.Uint()), nil
	case reflect.Bool:
		return r.Bool(), nil
	case reflect.Float32, reflect.Float64:
		return r.Float(), nil
	case reflect.Slice:
		if isRaw(r.Type()) {
			return string(r.Bytes()), checkText(string(r.Bytes()))
		}
		if r.Type().Elem().Kind() == reflect.Uint8 {
			return r.Bytes(), nil
		}
	}
	return nil, fmt.Errorf("sqldb: cannot store %s", r.Type())
}

func checkText(s string) error {
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return ErrText
	}
	return nil
}

// store copies a column, as plain describes it, to the pointer dst.
func store(dst, src any) error {
	switch d := dst.(type) {
	case *string:
		if s, ok := src.(string); ok {
			*d = s
			return nil
		}
	case *int64:
		if n, ok := src.(int64); ok {
			*d = n
			return nil
		}
	case *bool:
		switch v := src.(type) {
		case bool:
			*d = v
			return nil
		case int64: // SQLite has no booleans of its own
			*d = v != 0
			return nil
		}
	case **string:
		switch s := src.(type) {
		case nil:
			*d = nil
			return nil
		case string:
			*d = &s
			return nil
		}
	case *[]byte:
		switch b := src.(type) {
		case nil:
			*d = nil
			return nil
		case []byte:
			*d = b
			return nil
		}
	case sql.Scanner:
		return d.Scan(src)
	case *any:
		*d = src
		return nil
	}
	return storeKind(reflect.ValueOf(dst), src)
}

func storeKind(p reflect.Value, src any) error {
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("sqldb: cannot scan into %s, it is no pointer", p.Type())
	}
	d := p.Elem()
	if d.Kind() == reflect.Pointer {
		if src == nil {
			d.SetZero()
			return nil
		}
		d.Set(reflect.New(d.Type().Elem()))
		return store(d.Interface(), src)
	}
	s := reflect.ValueOf(src)
	switch {
	case d.Kind() == reflect.String && s.Kind() == reflect.String:
		d.SetString(s.String())
		return nil
	case s.Kind() == reflect.Int64 && d.CanInt():
		if d.OverflowInt(s.Int()) {
			return fmt.Errorf("sqldb: %d does not fit %s", src, d.Type())
		}
		d.SetInt(s.Int())
		return nil
	case s.Kind() == reflect.Int64 && d.CanUint():
		if s.Int() < 0 || d.OverflowUint(uint64(s.Int())) {
			return fmt.Errorf("sqldb: %d does not fit %s", src, d.Type())
		}
		d.SetUint(uint64(s.Int()))
		return nil
	case d.Kind() == reflect.Bool && s.Kind() == reflect.Bool:
		d.SetBool(s.Bool())
		return nil
	case d.Kind() == reflect.Bool && s.Kind() == reflect.Int64:
		d.SetBool(s.Int() != 0)
		return nil
	case d.CanFloat() && s.CanFloat():
		d.SetFloat(s.Float())
		return nil
	case d.CanFloat() && s.Kind() == reflect.Int64:
		d.SetFloat(float64(s.Int()))
		return nil
	case isRaw(d.Type()) && s.Kind() == reflect.String:
		d.SetBytes(append([]byte(nil), s.String()...)) // nil for the empty text
		return nil
	case d.Kind() == reflect.Slice && d.Type().Elem().Kind() == reflect.Uint8 && s.Kind() == reflect.Slice:
		d.SetBytes(s.Bytes())
		return nil
	}
	return fmt.Errorf("sqldb: cannot scan %T into %s", src, p.Type())
}
