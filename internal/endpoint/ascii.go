package endpoint

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// ASCII spells every character of a JSON text that is not ASCII as \uXXXX. The
// HTTP listener of the official SDK decodes each chunk that arrives by itself,
// so a character that is split between two chunks would be lost. Bytes that are
// not UTF-8 become \ufffd. A text that is ASCII already is returned as it is,
// not copied.
func ASCII(json []byte) []byte {
	i := asciiPrefix(json)
	if i == len(json) {
		return json
	}
	out := append(make([]byte, 0, len(json)+len(json)/2+16), json[:i]...)
	for i < len(json) {
		r, size := utf8.DecodeRune(json[i:])
		out = appendEscaped(out, r)
		i += size
		n := asciiPrefix(json[i:])
		out = append(out, json[i:i+n]...)
		i += n
	}
	return out
}

// asciiPrefix counts the ASCII bytes that b begins with, eight at a time.
func asciiPrefix(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:])&0x8080808080808080 != 0 {
			break
		}
	}
	for i < len(b) && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// appendEscaped appends r as one \uXXXX, or two for what lies beyond 16 bits.
func appendEscaped(out []byte, r rune) []byte {
	if r > 0xffff {
		hi, lo := utf16.EncodeRune(r)
		return appendUnit(appendUnit(out, hi), lo)
	}
	return appendUnit(out, r)
}

func appendUnit(out []byte, u rune) []byte {
	const hex = "0123456789abcdef"
	return append(out, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
}

// appendQuoted appends s as an ASCII-only JSON string.
func appendQuoted[S string | []byte](out []byte, s S) []byte {
	out = append(out, '"')
	text := string(s)
	start := 0
	for i, r := range text {
		if r >= ' ' && r < utf8.RuneSelf && r != '"' && r != '\\' {
			continue
		}
		out = append(out, text[start:i]...)
		if r == '"' || r == '\\' {
			out = append(out, '\\', byte(r))
		} else {
			out = appendEscaped(out, r)
		}
		_, size := utf8.DecodeRuneInString(text[i:]) // 1 for a byte that is not UTF-8
		start = i + size
	}
	return append(append(out, text[start:]...), '"')
}
