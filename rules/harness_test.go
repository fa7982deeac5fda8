package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/language/analysis"
	"tool/core/language/loader"
	"tool/core/model/label"
)

// harness is the argument of a test in Starlark:
//
//	t.target(label)             the analysed target: t.target("x")[Info].field
//	t.error(label)              the message of analysing it, which must fail
//	t.content(file)             what an action writes to the file
//	t.action(label, mnemonic)   its one action of that mnemonic: struct(builtin, params, args, env, inputs, outputs, progress)
//	t.equal(got, want)          fails the test where they differ
//	t.contains(got, part)       fails the test if part is not in got
type harness struct {
	t   *testing.T
	a   *analysis.Analyzer
	pkg label.Label
}

func (h *harness) value() starlark.Value {
	fields := map[string]starlark.Value{}
	for name, f := range map[string]func(*starlark.Thread, starlark.Tuple) (starlark.Value, error){
		"target": h.target, "error": h.errorOf, "content": h.content, "action": h.action, "equal": h.equal, "contains": h.contains,
	} {
		fields[name] = starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			if len(kwargs) > 0 {
				return nil, fmt.Errorf("%s takes no keywords", name)
			}
			return f(thread, args)
		})
	}
	return loader.NewStruct(fields)
}

func (h *harness) analyze(args starlark.Tuple, more ...any) (*analysis.Target, error) {
	var text string
	if err := starlark.UnpackPositionalArgs("target", args, nil, 1+len(more), append([]any{&text}, more...)...); err != nil {
		return nil, err
	}
	lb, err := label.Parse(text, h.pkg)
	if err != nil {
		return nil, err
	}
	return h.a.Analyze(context.Background(), lb)
}

func (h *harness) target(_ *starlark.Thread, args starlark.Tuple) (starlark.Value, error) {
	t, err := h.analyze(args)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (h *harness) errorOf(_ *starlark.Thread, args starlark.Tuple) (starlark.Value, error) {
	_, err := h.analyze(args)
	if err == nil {
		return nil, fmt.Errorf("%s is no error", args)
	}
	var e *loader.Error
	if errors.As(err, &e) {
		return starlark.String(e.Msg), nil
	}
	return starlark.String(err.Error()), nil
}

func (h *harness) content(_ *starlark.Thread, args starlark.Tuple) (starlark.Value, error) {
	var v starlark.Value
	if err := starlark.UnpackPositionalArgs("content", args, nil, 1, &v); err != nil {
		return nil, err
	}
	f, ok := v.(*analysis.File)
	if !ok || f.Artifact.Producer < 0 {
		return nil, fmt.Errorf("content: %s is not a file that an action makes", v)
	}
	a := h.a.Actions.Actions[f.Artifact.Producer]
	var p struct{ Content *string }
	if err := json.Unmarshal([]byte(a.Params), &p); err != nil || p.Content == nil {
		return nil, fmt.Errorf("content: %s is made by %s, which is not a write", v, a.Mnemonic)
	}
	return starlark.String(*p.Content), nil
}

func (h *harness) action(thread *starlark.Thread, args starlark.Tuple) (starlark.Value, error) {
	var mnemonic string
	t, err := h.analyze(args, &mnemonic)
	if err != nil {
		return nil, err
	}
	var found *action.Action
	var all []string
	for _, id := range t.Actions {
		a := h.a.Actions.Actions[id]
		all = append(all, a.Mnemonic)
		if a.Mnemonic != mnemonic {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s has several actions %s", t.Label, mnemonic)
		}
		found = a
	}
	if found == nil {
		return nil, fmt.Errorf("%s has no action %s, but %s", t.Label, mnemonic, strings.Join(all, ", "))
	}
	words := make([]string, len(found.Args))
	for i, w := range found.Args {
		words[i] = w.Text
	}
	root := starlark.Value(starlark.None)
	if found.Root >= 0 {
		root = starlark.String(h.a.Actions.Artifacts[found.Root].Path)
	}
	return loader.NewStruct(map[string]starlark.Value{
		"builtin": starlark.String(found.Builtin), "params": starlark.String(found.Params), "progress": starlark.String(found.Progress),
		"args": list(words), "env": list(found.Env), "inputs": list(h.paths(found.Inputs)), "outputs": list(h.paths(found.Outputs)), "root": root,
	}), nil
}

func (h *harness) paths(ids []int) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = h.a.Actions.Artifacts[id].Path
	}
	return out
}

func list(words []string) *starlark.List {
	vs := make([]starlark.Value, len(words))
	for i, w := range words {
		vs[i] = starlark.String(w)
	}
	return starlark.NewList(vs)
}

func (h *harness) equal(thread *starlark.Thread, args starlark.Tuple) (starlark.Value, error) {
	var got, want starlark.Value
	if err := starlark.UnpackPositionalArgs("equal", args, nil, 2, &got, &want); err != nil {
		return nil, err
	}
	if same, err := starlark.Equal(got, want); err != nil || !same {
		h.t.Errorf("%s\n got %s\nwant %s", thread.CallFrame(1).Pos, text(got), text(want))
	}
	return starlark.None, nil
}

func (h *harness) contains(thread *starlark.Thread, args starlark.Tuple) (starlark.Value, error) {
	var got, part string
	if err := starlark.UnpackPositionalArgs("contains", args, nil, 2, &got, &part); err != nil {
		return nil, err
	}
	if !strings.Contains(got, part) {
		h.t.Errorf("%s\n%s\nis not in\n%s", thread.CallFrame(1).Pos, part, got)
	}
	return starlark.None, nil
}

// text shows strings as they are: most hold several lines.
func text(v starlark.Value) string {
	if s, ok := starlark.AsString(v); ok {
		return s
	}
	return v.String()
}
