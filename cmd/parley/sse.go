package main

import (
	"bufio"
	"io"
	"strings"
)

// readEvents calls fn with the data of each server-sent event, and the id of
// the newest position that came with it or before, until the stream ends or fn
// returns an error.
func readEvents(r io.Reader, fn func(id, data string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	var id string
	var data []string
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if data != nil {
				if err := fn(id, strings.Join(data, "\n")); err != nil {
					return err
				}
			}
			data = nil
			continue
		}
		if value, ok := strings.CutPrefix(line, "data:"); ok {
			data = append(data, strings.TrimPrefix(value, " "))
		}
		if value, ok := strings.CutPrefix(line, "id:"); ok {
			id = strings.TrimPrefix(value, " ")
		}
	}
	return lines.Err()
}
