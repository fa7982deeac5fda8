package query

import (
	"regexp"
	"strings"
)

// ActionFilter is one of the functions that choose actions.
type ActionFilter struct {
	Function string // inputs, outputs or mnemonic
	Pattern  *regexp.Regexp
}

// ParseActions reads an aquery: a query, with inputs(), outputs() and
// mnemonic() around it. Their patterns match a whole path or mnemonic, as
// Bazel's do. An action is chosen if it passes all filters.
func ParseActions(text string) (*Expr, []ActionFilter, error) {
	root, err := parse(text, true)
	if err != nil {
		return nil, nil, err
	}
	var filters []ActionFilter
	for {
		c, ok := root.(*call)
		if !ok || c.fn.eval != nil {
			break
		}
		re, err := regexp.Compile("^(?:" + c.args[0].word + ")$")
		if err != nil {
			return nil, nil, &Error{Query: text, Pos: c.args[0].pos, Msg: c.fn.name + ": " + strings.Replace(err.Error(), "^(?:", "", 1), Err: err}
		}
		filters = append(filters, ActionFilter{c.fn.name, re})
		root = c.args[1].node
	}
	x := &Expr{root, text}
	if c := inner(root); c != nil {
		return nil, nil, &Error{Query: text, Pos: c.pos, Msg: c.fn.name + "() gives actions: it may stand only outermost"}
	}
	return x, filters, nil
}

// inner finds a function of actions below the top.
func inner(n node) *call {
	switch n := n.(type) {
	case *call:
		if n.fn.eval == nil {
			return n
		}
		for _, a := range n.args {
			if c := inner(a.node); c != nil {
				return c
			}
		}
	case *let:
		if c := inner(n.value); c != nil {
			return c
		}
		return inner(n.body)
	case *chain:
		if c := inner(n.first); c != nil {
			return c
		}
		for _, o := range n.rest {
			if c := inner(o.node); c != nil {
				return c
			}
		}
	}
	return nil
}
