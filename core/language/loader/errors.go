package loader

import (
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Error is a mistake in the user's files: one position, one cause.
type Error struct {
	Pos   string   // "file:line:col", the user's file rather than the library's
	Msg   string   // what and why
	Stack []string // how evaluation got there, innermost first; may be empty
	Err   error
}

// Error returns the position, the message and the stack, a line each.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Pos != "" {
		b.WriteString(e.Pos + ": ")
	}
	b.WriteString(e.Msg)
	for _, s := range e.Stack {
		b.WriteString("\n    " + s)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error at a position.
func Errorf(pos, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Pos: pos, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// Explain turns what the Starlark library returns into an Error. An Error
// further down the chain (of a file that was loaded) is the real cause and
// comes back as it is.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	var inner *Error
	if errors.As(err, &inner) {
		return inner
	}
	var se syntax.Error
	if errors.As(err, &se) {
		return &Error{Pos: posString(se.Pos), Msg: se.Msg, Err: err}
	}
	var re resolve.ErrorList
	if errors.As(err, &re) && len(re) > 0 {
		return &Error{Pos: posString(re[0].Pos), Msg: re[0].Msg, Err: err}
	}
	var ee *starlark.EvalError
	if !errors.As(err, &ee) {
		return err
	}
	e := &Error{Msg: ee.Msg, Err: err}
	frames := ee.CallStack
	// Frames come outermost first. The primary position is the innermost one
	// in the user's own files; a library's frames follow for who wants them.
	primary := -1
	for i := len(frames) - 1; i >= 0; i-- {
		f := frames[i]
		if f.Pos.Line > 0 && !strings.HasPrefix(f.Pos.Filename(), "@") {
			primary = i
			break
		}
	}
	for i := len(frames) - 1; i >= 0; i-- {
		f := frames[i]
		switch {
		case i == primary:
			e.Pos = posString(f.Pos)
		case f.Pos.Line > 0:
			e.Stack = append(e.Stack, fmt.Sprintf("%s: in %s", posString(f.Pos), f.Name))
		}
	}
	if e.Pos == "" && len(e.Stack) > 0 {
		e.Pos, _, _ = strings.Cut(e.Stack[0], ": in ")
		e.Stack = e.Stack[1:]
	}
	return e
}

// explainUndefined is Explain for the resolver's errors, with a guess at what
// an unknown name was meant to be.
func explainUndefined(err error, known starlark.StringDict) error {
	err = Explain(err)
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	if name, ok := strings.CutPrefix(e.Msg, "undefined: "); ok && !strings.Contains(name, " ") {
		e.Msg += didYouMean(name, append(known.Keys(), starlark.Universe.Keys()...))
	}
	return e
}

func posString(p syntax.Position) string {
	if p.Line == 0 {
		return p.Filename()
	}
	if p.Col == 0 {
		return fmt.Sprintf("%s:%d", p.Filename(), p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.Filename(), p.Line, p.Col)
}

// Guard runs f and turns a panic (of a builtin, on absurd input) into an
// error that names the Starlark position; it ends the thread when it takes too
// much memory. The thread must not be used again.
func Guard(thread *starlark.Thread, f func() error) (err error) {
	defer watchMemory(thread)()
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		e := &Error{Msg: fmt.Sprintf("this cannot be computed: %v", r)}
		for i := range thread.CallStackDepth() {
			fr := thread.CallFrame(i)
			if fr.Pos.Line == 0 {
				continue
			}
			if e.Pos == "" {
				e.Pos = posString(fr.Pos)
			} else {
				e.Stack = append(e.Stack, fmt.Sprintf("%s: in %s", posString(fr.Pos), fr.Name))
			}
		}
		err = e
	}()
	return f()
}
