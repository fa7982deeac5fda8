package query

import (
	"strconv"
	"strings"
)

// node is a node of a parsed expression.
type node interface {
	print(b *strings.Builder)
}

// operator is one of the three set operators.
type operator string

const (
	opIntersect operator = "^"
	opUnion     operator = "+"
	opExcept    operator = "-"
)

// chain is first op operand op operand …, evaluated from the left. It is one
// node so that a script's thousand unions do not nest.
type chain struct {
	first node
	rest  []operand
}

type operand struct {
	op   operator
	node node
}

// word is a target pattern.
type word struct {
	text string
	pos  int
}

type variable struct {
	name string
	pos  int
}

type let struct {
	name        string
	value, body node
}

type wordSet struct {
	words []*word
	pos   int
}

type call struct {
	fn   *function
	args []arg
	pos  int
}

// arg is an argument: an expression, a word or a number.
type arg struct {
	node  node
	word  string
	num   int
	isNum bool
	pos   int
}

func (n *chain) print(b *strings.Builder) {
	operandOf(b, n.first)
	for _, o := range n.rest {
		b.WriteString(" " + string(o.op) + " ")
		operandOf(b, o.node)
	}
}

// operandOf puts parentheses around what would otherwise bind differently.
func operandOf(b *strings.Builder, n node) {
	switch n.(type) {
	case *chain, *let:
		b.WriteString("(")
		n.print(b)
		b.WriteString(")")
	default:
		n.print(b)
	}
}

func (n *word) print(b *strings.Builder) { b.WriteString(quote(n.text)) }

func (n *variable) print(b *strings.Builder) { b.WriteString("$" + n.name) }

func (n *let) print(b *strings.Builder) {
	b.WriteString("let " + n.name + " = ")
	n.value.print(b)
	b.WriteString(" in ")
	n.body.print(b)
}

func (n *wordSet) print(b *strings.Builder) {
	b.WriteString("set(")
	for i, w := range n.words {
		if i > 0 {
			b.WriteString(" ")
		}
		w.print(b)
	}
	b.WriteString(")")
}

func (n *call) print(b *strings.Builder) {
	b.WriteString(n.fn.name + "(")
	for i, a := range n.args {
		if i > 0 {
			b.WriteString(", ")
		}
		switch {
		case a.node != nil:
			a.node.print(b)
		case a.isNum:
			b.WriteString(strconv.Itoa(a.num))
		default:
			b.WriteString(quote(a.word))
		}
	}
	b.WriteString(")")
}

// quote writes a word so that it is read as the same word.
func quote(s string) string {
	plain := s != "" && s[0] != '-' && s[0] != '*' && s[0] != '$' && !keywords[s]
	for i := 0; plain && i < len(s); i++ {
		plain = wordByte(s[i])
	}
	switch {
	case plain:
		return s
	case strings.Contains(s, `"`):
		return "'" + s + "'"
	}
	return `"` + s + `"`
}
