package deploy

import (
	"io"
	"os"
	"strings"
)

// Tail returns the last lines of a log, of those after from, made safe to print;
// "" where it cannot be read.
func Tail(path string, from int64, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 8 << 10
	if st, err := f.Stat(); err == nil {
		if from > st.Size() {
			from = 0 // it was begun anew
		}
		if _, err := f.Seek(max(from, st.Size()-most), io.SeekStart); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	ls := strings.Split(strings.TrimRight(Printable(string(b)), "\n"), "\n")
	return strings.Join(ls[max(0, len(ls)-lines):], "\n")
}

// Printable removes what a machine could do to a terminal: control characters
// and escape sequences.
func Printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == 0x1b && i+1 < len(s) && s[i+1] == '[':
			for i += 2; i < len(s) && (s[i] < 0x40 || s[i] > 0x7e); i++ {
			}
		case c == '\n' || c == '\t' || c >= 0x20 && c != 0x7f:
			b.WriteByte(c)
		}
	}
	return b.String()
}
