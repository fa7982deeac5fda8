package loader

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
)

// render writes a value as str() shows it. path holds the values around it: a
// struct may hold a list that holds the struct, and following that round would
// end only with the stack.
func render(b *strings.Builder, v starlark.Value, path map[starlark.Value]bool) {
	switch v.(type) {
	case *Struct, *Depset, *Select, *starlark.List, *starlark.Dict:
		if path[v] {
			b.WriteString("...")
			return
		}
		path[v] = true
		defer delete(path, v)
	}
	sequence := func(open, end string, n int, at func(int) starlark.Value) {
		b.WriteString(open)
		for i := range n {
			if i > 0 {
				b.WriteString(", ")
			}
			render(b, at(i), path)
		}
		b.WriteString(end)
	}
	switch v := v.(type) {
	case *Struct:
		b.WriteString(v.typeName() + "(")
		for i, n := range v.names {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(n + " = ")
			render(b, v.values[i], path)
		}
		b.WriteString(")")
	case *Depset:
		all := v.List()
		end := "])"
		if v.order != "default" {
			end = fmt.Sprintf("], order = %q)", v.order)
		}
		sequence("depset([", end, len(all), func(i int) starlark.Value { return all[i] })
	case *Select:
		for i, p := range v.Parts {
			if i > 0 {
				b.WriteString(" + ")
			}
			if p.Value != nil {
				render(b, p.Value, path)
				continue
			}
			b.WriteString("select({")
			for j, br := range p.Branches {
				if j > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(b, "%q: ", br.Text)
				render(b, br.Value, path)
			}
			b.WriteString("})")
		}
	case *starlark.List:
		sequence("[", "]", v.Len(), v.Index)
	case starlark.Tuple:
		end := ")"
		if len(v) == 1 {
			end = ",)"
		}
		sequence("(", end, len(v), v.Index)
	case *starlark.Dict:
		b.WriteString("{")
		for i, it := range v.Items() {
			if i > 0 {
				b.WriteString(", ")
			}
			render(b, it[0], path)
			b.WriteString(": ")
			render(b, it[1], path)
		}
		b.WriteString("}")
	default:
		b.WriteString(v.String())
	}
}

func renderString(v starlark.Value) string {
	var b strings.Builder
	render(&b, v, map[starlark.Value]bool{})
	return b.String()
}
