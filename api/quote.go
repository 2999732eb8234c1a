package api

import (
	"encoding/json"
	"fmt"
)

// Quoted writes a value of a request's body for an error's text, as Python's services do, cut short.
func Quoted(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case string:
		return "'" + Clip(v) + "'"
	case bool:
		if v {
			return "True"
		}
		return "False"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%T", v)
	}
	return Clip(string(b))
}

// Clip shortens what an answer repeats of a request: to 120 characters.
func Clip(s string) string {
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}
