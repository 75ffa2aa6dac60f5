package main

import (
	"bufio"
	"io"
	"strings"
)

// readEvents calls fn with the data of each server-sent event until the stream
// ends or fn returns an error.
func readEvents(r io.Reader, fn func(data string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	var data []string
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if data != nil {
				if err := fn(strings.Join(data, "\n")); err != nil {
					return err
				}
			}
			data = nil
			continue
		}
		if value, ok := strings.CutPrefix(line, "data:"); ok {
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
	return lines.Err()
}
