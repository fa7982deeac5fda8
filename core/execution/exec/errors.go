package exec

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"tool/core/language/action"
	"tool/core/model/merkle"
)

// ActionError says why an action failed.
type ActionError struct {
	Action   *action.Action
	Argv     []string // the command; nil for a builtin
	ExitCode int
	TimedOut bool
	Timeout  time.Duration
	Stdout   []byte
	Stderr   []byte
	Missing  []string // outputs that the command did not write
	Problems []string // what is wrong with those that it wrote
	Kept     string   // how to enter the sandbox
	Err      error    // set where it is not the command that failed
}

// tailLines is how much of a command's stderr its error shows.
const tailLines = 30

// Error is one message: where, what, why, and the command's own words.
func (e *ActionError) Error() string {
	var s strings.Builder
	a := e.Action
	if a.Position != "" {
		fmt.Fprintf(&s, "%s: ", a.Position)
	}
	fmt.Fprintf(&s, "%s: %s failed: ", a.Owner, a.Mnemonic)
	switch {
	case e.Err != nil:
		s.WriteString(e.Err.Error())
	case e.TimedOut:
		fmt.Fprintf(&s, "it was killed after its time limit of %s", e.Timeout)
	case e.ExitCode > 128:
		fmt.Fprintf(&s, "exit status %d (signal %d)", e.ExitCode, e.ExitCode-128)
	case e.ExitCode != 0:
		fmt.Fprintf(&s, "exit status %d", e.ExitCode)
	case len(e.Missing) > 0:
		fmt.Fprintf(&s, "it did not write %s", strings.Join(e.Missing, ", "))
		if len(e.Problems) > 0 {
			s.WriteString("; " + strings.Join(e.Problems, "; "))
		}
	default:
		s.WriteString(strings.Join(e.Problems, "; "))
	}
	if len(e.Argv) > 0 {
		s.WriteString("\n  command: " + shorten(e.Argv, 1000))
	}
	out := e.Stderr
	if len(bytes.TrimSpace(out)) == 0 {
		out = e.Stdout // many tools complain there
	}
	if lines := tail(out, tailLines); lines != "" {
		s.WriteString("\n" + lines)
	}
	if e.Kept != "" {
		s.WriteString("\n  to look around in its sandbox: " + e.Kept)
	}
	return s.String()
}

// Unwrap returns the cause, where it is not the command itself.
func (e *ActionError) Unwrap() error { return e.Err }

// SourceChangedError says that a source was edited while an action used it.
type SourceChangedError struct{ Path string }

func (e *SourceChangedError) Error() string {
	return fmt.Sprintf("the source %s changed while the build ran; build again", e.Path)
}

// NotReproducibleError says that an action, run again on the same inputs, made
// something else.
type NotReproducibleError struct {
	Action   *action.Action
	Output   string // exec path
	Path     string // the first file in Output that differs; "" for Output itself
	Old, New merkle.Node
}

func (e *NotReproducibleError) Error() string {
	where := e.Output
	if e.Path != "" {
		where += "/" + e.Path
	}
	return fmt.Sprintf("%s: %s: %s is not reproducible: running it again changed %s (before: %s, now: %s)",
		e.Action.Position, e.Action.Owner, e.Action.Mnemonic, where, describe(e.Old), describe(e.New))
}

func describe(n merkle.Node) string {
	switch {
	case n.Kind == 0:
		return "absent"
	case n.Kind == merkle.Symlink:
		return "link to " + n.Target
	case n.Executable:
		return "executable " + n.Digest.String()
	}
	return n.Kind.String() + " " + n.Digest.String()
}

// shorten quotes a command for a shell, and cuts it to about max bytes.
func shorten(argv []string, max int) string {
	var s strings.Builder
	for i, a := range argv {
		if s.Len() > max {
			fmt.Fprintf(&s, " ... (%d more arguments)", len(argv)-i)
			break
		}
		if i > 0 {
			s.WriteByte(' ')
		}
		if len(a) > max {
			a = a[:max] + "..."
		}
		s.WriteString(quote(a))
	}
	return s.String()
}

// quote quotes a word for a POSIX shell.
func quote(w string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
	}
	if w != "" && strings.IndexFunc(w, func(r rune) bool { return !plain(r) }) < 0 {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

func tail(b []byte, n int) string {
	b = bytes.TrimRight(b, "\n")
	at := len(b)
	for range n {
		if at = bytes.LastIndexByte(b[:at], '\n'); at < 0 {
			return string(b)
		}
	}
	return fmt.Sprintf("... (%d lines before)\n%s", bytes.Count(b[:at], []byte("\n"))+1, b[at+1:])
}
