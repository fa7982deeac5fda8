package loader

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/model/event"
	"tool/core/model/label"
)

// eval is what one Starlark thread is doing. It is the thread's only local.
type eval struct {
	loader *Loader
	file   label.Label // the .star file or, with Name empty, the package
	pkg    *Package    // set while a BUILD file is evaluated
}

const evalKey = "tool.eval"

func evalOf(thread *starlark.Thread) *eval {
	if e, ok := thread.Local(evalKey).(*eval); ok {
		return e
	}
	return &eval{}
}

// here is the package that labels written in this file are relative to.
func (e *eval) here() label.Label { return e.file.Package() }

// DefaultMaxSteps bounds the bytecode steps of one file or rule: a net under
// endless loops, far above what real files need.
const DefaultMaxSteps = 1_000_000_000

// NewThread returns a thread for evaluating in (a .star file or rule
// implementation of) the file; every thread of the engine is made here.
func (l *Loader) NewThread(name string, file label.Label) *starlark.Thread {
	return l.newThread(name, &eval{loader: l, file: file})
}

func (l *Loader) newThread(name string, ev *eval) *starlark.Thread {
	t := &starlark.Thread{Name: name}
	t.Print = func(t *starlark.Thread, msg string) {
		l.Events.Send(event.Printed{Position: posString(t.CallFrame(1).Pos), Text: msg})
	}
	t.SetLocal(evalKey, ev)
	limit := l.MaxSteps
	if limit == 0 {
		limit = DefaultMaxSteps
	}
	t.SetMaxExecutionSteps(limit)
	t.OnMaxSteps = func(t *starlark.Thread) {
		t.Cancel(fmt.Sprintf("this took more than %d steps: an endless loop? (tool.toml: starlark.max_steps raises the limit)", limit))
	}
	return t
}

// callSite returns the position in the BUILD file of the call that is being
// made, and the name of the macro that makes it, if one does.
func (e *eval) callSite(thread *starlark.Thread) (pos, macro string) {
	for i := thread.CallStackDepth() - 1; i >= 0; i-- {
		f := thread.CallFrame(i)
		if f.Pos.Line > 0 && f.Pos.Filename() == e.pkg.File {
			pos = posString(f.Pos)
			if i > 1 {
				macro = thread.CallFrame(i - 1).Name
			}
			return pos, macro
		}
	}
	return e.pkg.File, ""
}

// callerFile is the label of the file whose code is calling the builtin.
func (l *Loader) callerFile(thread *starlark.Thread) label.Label {
	name := thread.CallFrame(1).Pos.Filename()
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.files[name]; ok {
		return f
	}
	return evalOf(thread).file
}

// here is evalOf(thread).here for code that may run in another file's thread.
func (l *Loader) makeLabel(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var v starlark.Value
	if err := starlark.UnpackArgs("Label", args, kwargs, "input", &v); err != nil {
		return nil, err
	}
	if lb, ok := v.(Label); ok {
		return lb, nil
	}
	s, ok := starlark.AsString(v)
	if !ok {
		return nil, fmt.Errorf("Label: got %s, want string", v.Type())
	}
	lb, err := label.Parse(s, l.callerFile(thread).Package())
	if err != nil {
		return nil, err
	}
	return Label{lb}, nil
}

func makeFail(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	sep := " "
	attr := ""
	for _, kw := range kwargs {
		s, ok := starlark.AsString(kw[1])
		switch k := kw[0].(starlark.String); {
		case k == "sep" && ok:
			sep = s
		case k == "attr" && ok:
			attr = "attribute " + s + ": "
		case k == "msg":
			args = append(starlark.Tuple{kw[1]}, args...)
		default:
			return nil, fmt.Errorf("fail: unexpected argument %s", kw[0])
		}
	}
	parts := make([]string, len(args))
	for i, a := range args {
		if s, ok := starlark.AsString(a); ok {
			parts[i] = s
		} else {
			parts[i] = a.String()
		}
	}
	return nil, fmt.Errorf("%s%s", attr, strings.Join(parts, sep))
}

// maxRange bounds range(): a list of it must fit into memory.
const maxRange = 50_000_000

func boundedRange(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	v, err := starlark.Call(thread, starlark.Universe["range"], args, kwargs)
	if err != nil {
		return nil, err
	}
	if n := starlark.Len(v); n > maxRange || n < 0 {
		return nil, fmt.Errorf("range: more than %d elements", maxRange)
	}
	return v, nil
}
