package label

// Nearest returns the candidate most like name, for "did you mean" hints, or
// "" if none is close (more than a third of its letters differ).
func Nearest(name string, candidates []string) string {
	best, bestDist := "", len(name)/3+1
	for _, c := range candidates {
		if d := distance(name, c, bestDist); d <= bestDist && (best == "" || d < bestDist) && c != name {
			best, bestDist = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance, or more than limit if it exceeds that.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit || len(a) > 200 {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j]+1, row[j+1]+1, diag+cost)
			diag, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
