package deploy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestWaves(t *testing.T) {
	three := []string{"a", "b", "c"}
	for _, c := range []struct {
		name     string
		groups   []Group
		machines []string
		down     []string
		parallel int
		want     string
	}{
		{"no groups: all at once", nil, three, nil, 0, "a,b,c"},
		{"no groups, two at a time", nil, three, nil, 2, "a,b | c"},
		{"all but one", []Group{{"g", three, ""}}, three, nil, 0, "a | b | c"},
		{"a quorum of one", []Group{{"g", three, "1"}}, three, nil, 0, "a,b | c"},
		{"no quorum", []Group{{"g", three, "0"}}, three, nil, 0, "a,b,c"},
		{"none may be spared: one at a time", []Group{{"g", three, "3"}}, three, nil, 0, "a | b | c"},
		{"those of no group go first", []Group{{"g", []string{"a", "b"}, ""}}, three, nil, 0, "c,a | b"},
		{"one that is down costs nothing", []Group{{"g", three, "2"}}, three, []string{"b"}, 0, "a,b | c"},
		{"below its quorum all go at once", []Group{{"g", three, "2"}}, three, []string{"b", "c"}, 0, "a,b,c"},
		{"two groups", []Group{{"g", []string{"a", "b"}, ""}, {"h", []string{"b", "c"}, ""}}, three, nil, 0, "a,c | b"},
		{"some only", []Group{{"g", three, ""}}, []string{"c"}, nil, 0, "c"},
		{"none", []Group{{"g", three, ""}}, nil, nil, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			down := map[string]bool{}
			for _, d := range c.down {
				down[d] = true
			}
			got, err := waves(c.groups, c.machines, down, c.parallel)
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, w := range got {
				words = append(words, strings.Join(w, ","))
			}
			if s := strings.Join(words, " | "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
	for _, q := range []string{"x", "-1", "4"} {
		if _, err := waves([]Group{{"g", three, q}}, three, nil, 0); err == nil || !strings.Contains(err.Error(), "rollout group g") {
			t.Errorf("quorum %q: %v", q, err)
		}
	}
}

// TestWavesKeepQuorums makes random fleets: each machine switches once, no wave
// is larger than allowed, and no group that has its quorum loses it.
func TestWavesKeepQuorums(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 1 + r.IntN(9)
		var all, changing []string
		down := map[string]bool{}
		for i := range n {
			m := fmt.Sprint("m", i)
			all = append(all, m)
			down[m] = r.IntN(5) == 0
			if r.IntN(4) > 0 {
				changing = append(changing, m)
			}
		}
		var groups []Group
		for i := range r.IntN(4) {
			g := Group{Name: fmt.Sprint("g", i)}
			for _, m := range all {
				if r.IntN(2) == 0 {
					g.Machines = append(g.Machines, m)
				}
			}
			if len(g.Machines) > 0 && r.IntN(2) == 0 {
				g.Quorum = strconv.Itoa(r.IntN(len(g.Machines) + 1))
			}
			groups = append(groups, g)
		}
		parallel := r.IntN(4)
		got, err := waves(groups, changing, down, parallel)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		flat := slices.Concat(got...)
		slices.Sort(flat)
		if want := slices.Sorted(slices.Values(changing)); !slices.Equal(flat, want) {
			t.Fatalf("seed %d: switched %v, want %v", seed, flat, want)
		}
		for _, w := range got {
			if parallel > 0 && len(w) > parallel {
				t.Fatalf("seed %d: %v, %d at a time", seed, w, parallel)
			}
			for _, g := range groups {
				checkQuorum(t, seed, g, w, down)
			}
		}
	}
}

func checkQuorum(t *testing.T, seed uint64, g Group, wave []string, down map[string]bool) {
	t.Helper()
	quorum := len(g.Machines) - 1
	if g.Quorum != "" {
		quorum, _ = strconv.Atoi(g.Quorum)
	}
	up, left := 0, 0
	for _, m := range g.Machines {
		if !down[m] {
			up++
			if !slices.Contains(wave, m) {
				left++
			}
		}
	}
	switch {
	case up < quorum: // nothing to lose
	case up == quorum: // none to spare: one at a time
		if left < up-1 {
			t.Fatalf("seed %d: group %+v has %d up and wave %v takes %d", seed, g, up, wave, up-left)
		}
	case left < quorum:
		t.Fatalf("seed %d: group %+v is left with %d of %d by wave %v (down %v)", seed, g, left, quorum, wave, down)
	}
}
