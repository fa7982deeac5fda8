package query

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// defaultNodeLimit is the longest text that GraphViz takes.
const defaultNodeLimit = 1024

// writeGraph prints the result as a graph for GraphViz.
func (r *Result) writeGraph(w *bufio.Writer, opt OutputOptions) error {
	limit := opt.NodeLimit
	if limit == 0 {
		limit = defaultNodeLimit
	}
	order := make([]int, len(r.ids))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, r.compare)
	links := r.links()
	groups := make([][]int, 0, len(order)) // sorted by first member
	of := make([]int, len(order))
	if opt.Unfactored {
		for _, i := range order {
			of[i] = len(groups)
			groups = append(groups, []int{i})
		}
	} else {
		byKey := map[string]int{}
		back := make([][]int, len(links))
		for _, i := range order {
			for _, j := range links[i] {
				back[j] = append(back[j], i)
			}
		}
		for _, i := range order {
			key := fmt.Sprint(links[i], back[i]) // both sorted by label
			g, ok := byKey[key]
			if !ok {
				g = len(groups)
				byKey[key] = g
				groups = append(groups, nil)
			}
			of[i] = g
			groups[g] = append(groups[g], i)
		}
	}
	names := make([]string, len(groups))
	for g, members := range groups {
		names[g] = r.nodeText(members, limit)
	}
	fmt.Fprintln(w, "digraph mygraph {\n  node [shape=box];")
	for g, members := range groups {
		fmt.Fprintf(w, "  %s\n", names[g])
		done := map[int]bool{}
		for _, j := range links[members[0]] { // all members have the same
			if to := of[j]; !done[to] {
				done[to] = true
				fmt.Fprintf(w, "  %s -> %s\n", names[g], names[to])
			}
		}
	}
	_, err := fmt.Fprintln(w, "}")
	return err
}

// nodeText joins the labels of a group, as many as fit into limit.
func (r *Result) nodeText(members []int, limit int) string {
	var b strings.Builder
	for n, i := range members {
		s := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(r.Targets[i].Label.String())
		if n > 0 {
			s = `\n` + s
		}
		if limit > 0 && b.Len()+len(s) > limit {
			if n == 0 {
				b.WriteString(cut(s, limit))
				n++
			}
			if rest := len(members) - n; rest > 0 {
				fmt.Fprintf(&b, `\n...and %d more items`, rest)
			}
			break
		}
		b.WriteString(s)
	}
	return `"` + b.String() + `"`
}

// cut shortens s to at most limit bytes, without splitting a character or an
// escape.
func cut(s string, limit int) string {
	s = s[:limit]
	for s != "" && !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	if n := len(s) - len(strings.TrimRight(s, `\`)); n%2 == 1 {
		s = s[:len(s)-1]
	}
	return s
}
