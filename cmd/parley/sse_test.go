package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestEventsAreReadWhole(t *testing.T) {
	t.Parallel()
	var got []string
	err := readEvents(strings.NewReader(": hello\n\nevent: message\nid: 1\ndata: one\n\ndata:two\ndata: lines\n\nid: 3\ndata:\n\ndata: cut"), func(id, data string) error {
		got = append(got, id+" "+data)
		return nil
	})
	if want := []string{"1 one", "1 two\nlines", "3 "}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if err := readEvents(strings.NewReader("data: x\n\n"), func(string, string) error { return io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want the error of the reader", err)
	}
}
