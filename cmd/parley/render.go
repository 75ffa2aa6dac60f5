package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// plainText shows a message's payload on a terminal.
func plainText(payload map[string]any) string {
	str := func(name string) string {
		s, _ := payload[name].(string)
		return s
	}
	switch str("type") {
	case "text":
		return printable(str("text"))
	case "markdown":
		return printable(str("markdown"))
	case "choice", "dropdown":
		lines := []string{printable(str("text"))}
		options, _ := payload["options"].([]any)
		for _, o := range options {
			option, _ := o.(map[string]any)
			label, _ := option["label"].(string)
			lines = append(lines, "  - "+printable(label))
		}
		return strings.Join(lines, "\n")
	case "image", "audio", "video", "file":
		return printable(fmt.Sprintf("[%s] %s", str("type"), str(str("type")+"Url")))
	case "card":
		return printable("[card] " + strings.TrimSpace(str("title")+"\n"+str("subtitle")))
	}
	text, err := json.Marshal(payload)
	if err != nil {
		return fmt.Sprint(payload)
	}
	return printable(string(text))
}

// printable drops what would steer the terminal: a bot's words are a stranger's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
