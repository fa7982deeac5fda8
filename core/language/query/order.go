package query

import (
	"slices"

	"tool/core/model/label"
)

// links returns the graph over the result's targets, by their index in r.ids
// and sorted. Targets that are not in the result leave their order behind: if
// a needs b only through one of them, there is an edge from a to b, as in
// Bazel. Only what the evaluation has met is followed.
func (r *Result) links() [][]int {
	w := r.world
	index := make([]int, len(w.labels)) // id → index + 1
	for i, id := range r.ids {
		index[id] = i + 1
	}
	edges := func(id int) []int {
		if w.edges[id] != nil || index[id] == 0 {
			return w.edges[id]
		}
		// A target of a bare pattern was never expanded. Which of the others
		// it needs can be told without loading anything.
		var out []int
		for _, e := range w.plainEdges(w.targets[id]) {
			if to, ok := w.ids[e.Label]; ok {
				out = append(out, to)
			}
		}
		return out
	}
	out := make([][]int, len(r.ids))
	mark := make([]int, len(w.labels)) // the last i + 1 that came here
	for i, id := range r.ids {
		todo := slices.Clone(edges(id))
		for len(todo) > 0 {
			to := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if mark[to] == i+1 {
				continue
			}
			mark[to] = i + 1
			if j := index[to]; j > 0 {
				if j != i+1 {
					out[i] = append(out[i], j-1)
				}
				continue
			}
			todo = append(todo, edges(to)...)
		}
		slices.SortFunc(out[i], func(a, b int) int { return r.compare(a, b) })
	}
	return out
}

func (r *Result) compare(i, j int) int {
	a, b := r.world.labels[r.ids[i]], r.world.labels[r.ids[j]]
	return label.Compare(a, b)
}

// topological sorts the ids, which are sorted by label: the reverse of a
// postorder search that starts from each target in turn.
func (r *Result) topological() []int {
	links := r.links()
	seen := make([]bool, len(r.ids))
	order := make([]int, 0, len(r.ids))
	var visit func(i int)
	visit = func(i int) {
		if seen[i] {
			return
		}
		seen[i] = true
		for _, j := range links[i] {
			visit(j)
		}
		order = append(order, r.ids[i])
	}
	for i := range r.ids {
		visit(i)
	}
	slices.Reverse(order)
	return order
}

// ranks returns for each target its distance from the targets that no other
// needs: the shortest one or the longest. All targets of a cycle have the same.
func (r *Result) ranks(longest bool) []int {
	links := r.links()
	comp, n := components(links)
	next := make([][]int, n)
	incoming := make([]int, n)
	for i, ls := range links {
		for _, j := range ls {
			if a, b := comp[i], comp[j]; a != b && !slices.Contains(next[a], b) {
				next[a] = append(next[a], b)
				incoming[b]++
			}
		}
	}
	rank := make([]int, n)
	var todo []int
	for c := range n {
		rank[c] = -1
		if incoming[c] == 0 {
			rank[c] = 0
			todo = append(todo, c)
		}
	}
	if longest { // in topological order, so each rank is final when it is used
		for ; len(todo) > 0; todo = todo[1:] {
			c := todo[0]
			for _, d := range next[c] {
				rank[d] = max(rank[d], rank[c]+1)
				if incoming[d]--; incoming[d] == 0 {
					todo = append(todo, d)
				}
			}
		}
	} else {
		for ; len(todo) > 0; todo = todo[1:] {
			c := todo[0]
			for _, d := range next[c] {
				if rank[d] < 0 {
					rank[d] = rank[c] + 1
					todo = append(todo, d)
				}
			}
		}
	}
	out := make([]int, len(comp))
	for i, c := range comp {
		out[i] = rank[c]
	}
	return out
}

// components numbers the strongly connected components (Tarjan).
func components(links [][]int) (comp []int, n int) {
	comp = make([]int, len(links))
	low := make([]int, len(links))
	num := make([]int, len(links)) // 0: not visited
	var stack []int
	count := 0
	var visit func(v int)
	visit = func(v int) {
		count++
		num[v], low[v] = count, count
		stack = append(stack, v)
		comp[v] = -1
		for _, t := range links[v] {
			if num[t] == 0 {
				visit(t)
				low[v] = min(low[v], low[t])
			} else if comp[t] < 0 {
				low[v] = min(low[v], num[t])
			}
		}
		if low[v] != num[v] {
			return
		}
		for {
			t := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			comp[t] = n
			if t == v {
				break
			}
		}
		n++
	}
	for v := range links {
		if num[v] == 0 {
			visit(v)
		}
	}
	return comp, n
}
