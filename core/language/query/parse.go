package query

import (
	"errors"
	"sort"
	"strconv"
	"strings"

	"tool/core/model/label"
)

// Expr is a parsed query.
type Expr struct {
	root node
	text string
}

// String returns the expression in one form for all its spellings: Parse reads
// it back as the same expression.
func (x *Expr) String() string {
	var b strings.Builder
	x.root.print(&b)
	return b.String()
}

// maxDepth bounds how deep expressions may nest, so that no input can use up
// the stack. Chains of operators do not nest.
const maxDepth = 200

type parser struct {
	toks    []token
	at      int
	depth   int
	actions bool // action functions are known (aquery)
}

// Parse reads a query.
func Parse(text string) (*Expr, error) {
	root, err := parse(text, false)
	if err != nil {
		return nil, err
	}
	return &Expr{root, text}, nil
}

func parse(text string, actions bool) (node, error) {
	withText := func(err error) error {
		var e *Error
		if errors.As(err, &e) {
			e.Query = text
		}
		return err
	}
	toks, err := lex(text)
	if err != nil {
		return nil, withText(err)
	}
	p := &parser{toks: toks, actions: actions}
	root, err := p.expr()
	if err == nil && p.peek().kind != tokenEnd {
		err = p.unexpected("an operator or the end")
	}
	if err != nil {
		return nil, withText(err)
	}
	return root, nil
}

func (p *parser) peek() token { return p.toks[p.at] }

func (p *parser) next() token {
	t := p.toks[p.at]
	if t.kind != tokenEnd {
		p.at++
	}
	return t
}

func (p *parser) expect(k tokenKind) (token, error) {
	if p.peek().kind != k {
		want := `"` + string(k) + `"`
		if k == tokenWord {
			want = "a word"
		}
		return token{}, p.unexpected(want)
	}
	return p.next(), nil
}

func (p *parser) unexpected(want string) error {
	return errorAt(p.peek().pos, "want %s here, found %s", want, p.peek())
}

var operators = map[tokenKind]operator{
	"intersect": opIntersect, "^": opIntersect, "union": opUnion, "+": opUnion, "except": opExcept, "-": opExcept,
}

func (p *parser) expr() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errorAt(p.peek().pos, "more than %d levels of nesting", maxDepth)
	}
	defer func() { p.depth-- }()
	first, err := p.primary()
	if err != nil {
		return nil, err
	}
	var rest []operand
	for {
		op, ok := operators[p.peek().kind]
		if !ok {
			break
		}
		p.next()
		n, err := p.primary()
		if err != nil {
			return nil, err
		}
		rest = append(rest, operand{op, n})
	}
	if rest == nil {
		return first, nil
	}
	return &chain{first, rest}, nil
}

func (p *parser) primary() (node, error) {
	t := p.peek()
	switch t.kind {
	case "(":
		p.next()
		n, err := p.expr()
		if err != nil {
			return nil, err
		}
		_, err = p.expect(")")
		return n, err
	case "let":
		return p.let()
	case "set":
		return p.set()
	case tokenWord:
		p.next()
		if p.peek().kind == "(" && !t.quoted {
			return p.call(t)
		}
		if !t.quoted && strings.HasPrefix(t.text, "$") {
			if !identifier(t.text[1:]) {
				return nil, errorAt(t.pos, "%q is not a name of a variable", t.text)
			}
			return &variable{t.text[1:], t.pos}, nil
		}
		return &word{t.text, t.pos}, nil
	}
	return nil, p.unexpected("a target pattern, a function or (")
}

func (p *parser) let() (node, error) {
	p.next()
	name, err := p.expect(tokenWord)
	if err != nil {
		return nil, err
	}
	if !identifier(name.text) {
		return nil, errorAt(name.pos, "%q is not a name of a variable", name.text)
	}
	if _, err := p.expect("="); err != nil {
		return nil, err
	}
	value, err := p.expr()
	if err != nil {
		return nil, err
	}
	if _, err := p.expect("in"); err != nil {
		return nil, err
	}
	body, err := p.expr()
	return &let{name.text, value, body}, err
}

func (p *parser) set() (node, error) {
	s := &wordSet{pos: p.next().pos}
	if _, err := p.expect("("); err != nil {
		return nil, err
	}
	for p.peek().kind == tokenWord {
		t := p.next()
		s.words = append(s.words, &word{t.text, t.pos})
	}
	if p.peek().kind == "," {
		return nil, errorAt(p.peek().pos, "the words in set() are separated by spaces, not commas")
	}
	_, err := p.expect(")")
	return s, err
}

func (p *parser) call(name token) (node, error) {
	fn := functions[name.text]
	if fn == nil {
		all := make([]string, 0, len(functions))
		for n, f := range functions {
			if p.actions || f.eval != nil {
				all = append(all, n)
			}
		}
		sort.Strings(all)
		hint := "; there are " + strings.Join(all, ", ")
		if n := label.Nearest(name.text, all); n != "" {
			hint = `; did you mean "` + n + `"?`
		}
		return nil, errorAt(name.pos, "there is no function %q%s", name.text, hint)
	}
	if fn.eval == nil && !p.actions {
		return nil, errorAt(name.pos, "%s() chooses actions, so it is for aquery", fn.name)
	}
	c := &call{fn: fn, pos: name.pos}
	p.next()
	for i := 0; ; i++ {
		if i > 0 || len(fn.args) == 0 {
			if p.peek().kind == ")" {
				break
			}
			if _, err := p.expect(","); err != nil {
				return nil, err
			}
		}
		a, err := p.arg(fn, i)
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, a)
	}
	closing := p.next()
	if len(c.args) < len(fn.args)-fn.optional {
		return nil, errorAt(closing.pos, "%s has too few arguments; it is %s", fn.name, fn.usage())
	}
	return c, nil
}

func (p *parser) arg(fn *function, i int) (arg, error) {
	if i >= len(fn.args) {
		if !fn.variadic {
			return arg{}, errorAt(p.peek().pos, "%s has too many arguments; it is %s", fn.name, fn.usage())
		}
		i = len(fn.args) - 1
	}
	pos := p.peek().pos
	switch fn.args[i] {
	case argExpr:
		n, err := p.expr()
		if err != nil {
			return arg{}, err
		}
		if c, ok := n.(*call); ok && c.fn.eval == nil && fn.eval != nil {
			return arg{}, errorAt(pos, "%s() gives actions, which %s() cannot take", c.fn.name, fn.name)
		}
		return arg{node: n, pos: pos}, nil
	case argInt:
		t, err := p.expect(tokenWord)
		if err != nil {
			return arg{}, err
		}
		n, err := strconv.ParseUint(t.text, 10, 31)
		if err != nil {
			return arg{}, errorAt(pos, "want a whole number here, found %s; it is %s", t, fn.usage())
		}
		return arg{num: int(n), isNum: true, pos: pos}, nil
	}
	t, err := p.expect(tokenWord)
	if err != nil {
		return arg{}, err
	}
	return arg{word: t.text, pos: pos}, nil
}

func identifier(s string) bool {
	for i, c := range s {
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}
