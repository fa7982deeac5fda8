package query

import (
	"strings"
	"unicode/utf8"
)

// tokenKind is a word, or the punctuation or keyword itself.
type tokenKind string

const (
	tokenWord tokenKind = "word"
	tokenEnd  tokenKind = "end of the query"
)

type token struct {
	kind   tokenKind
	text   string // of a word, without quotes
	quoted bool
	pos    int
}

// String is how errors name the token.
func (t token) String() string {
	switch t.kind {
	case tokenWord:
		return `"` + t.text + `"`
	case tokenEnd:
		return string(tokenEnd)
	}
	return `"` + string(t.kind) + `"`
}

// Words that are not words unless quoted.
var keywords = map[string]bool{"except": true, "in": true, "intersect": true, "let": true, "set": true, "union": true}

// wordByte reports whether c may stand in an unquoted word.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("*/@.-_:$~[]", c) >= 0
}

// lex splits a query into tokens; the last is tokenEnd.
func lex(s string) ([]token, error) {
	var out []token
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case strings.IndexByte("()^+-=,", c) >= 0:
			out = append(out, token{kind: tokenKind(c), pos: i})
			i++
		case c == '"' || c == '\'':
			n := strings.IndexByte(s[i+1:], c)
			if n < 0 {
				return nil, errorAt(i, "this quotation mark is never closed")
			}
			out = append(out, token{kind: tokenWord, text: s[i+1 : i+1+n], quoted: true, pos: i})
			i += n + 2
		case c == '*':
			return nil, errorAt(i, "a word that starts with * must be quoted")
		case wordByte(c):
			j := i
			for j < len(s) && wordByte(s[j]) {
				j++
			}
			t := token{kind: tokenWord, text: s[i:j], pos: i}
			if keywords[t.text] {
				t.kind = tokenKind(t.text)
			}
			out = append(out, t)
			i = j
		default:
			r, _ := utf8.DecodeRuneInString(s[i:])
			return nil, errorAt(i, "%q cannot stand outside of quotation marks", r)
		}
	}
	return append(out, token{kind: tokenEnd, pos: len(s)}), nil
}

// lineAt returns the line that holds byte pos, and the column of pos in it,
// in characters from 0.
func lineAt(s string, pos int) (string, int) {
	pos = min(max(pos, 0), len(s))
	start := strings.LastIndexByte(s[:pos], '\n') + 1
	end := len(s)
	if i := strings.IndexByte(s[pos:], '\n'); i >= 0 {
		end = pos + i
	}
	return strings.ReplaceAll(s[start:end], "\t", " "), utf8.RuneCountInString(s[start:pos])
}
