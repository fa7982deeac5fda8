package analysis

import (
	"encoding/json"
	"fmt"

	starjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/model/digest"
)

// builtin declares an in-process action. It is how the rule library unpacks,
// merges and fetches; params is a JSON-able dict.
func (c *ruleContext) builtin(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name, mnemonic, progress string
	var outputs, inputs, params starlark.Value
	var fixed *starlark.Dict
	if err := starlark.UnpackArgs("builtin", args, kwargs, "name", &name, "outputs", &outputs, "inputs?", &inputs, "params?", &params,
		"mnemonic?", &mnemonic, "progress_message?", &progress, "fixed?", &fixed); err != nil {
		return nil, err
	}
	outs, err := filesOf("outputs", outputs)
	if err != nil {
		return nil, err
	}
	ins, err := filesOf("inputs", inputs)
	if err != nil {
		return nil, err
	}
	if params == nil {
		params = starlark.NewDict(0)
	}
	v, err := starlark.Call(thread, starjson.Module.Members["encode"], starlark.Tuple{params}, nil)
	if err != nil {
		return nil, fmt.Errorf("params: %w", err)
	}
	act := &action.Action{Builtin: name, Mnemonic: mnemonic, Progress: c.progress(progress, ins, outs), Root: -1, Params: string(v.(starlark.String))}
	if act.Mnemonic == "" {
		act.Mnemonic = name
	}
	if fixed != nil {
		d, err := fixedDigest(fixed)
		if err != nil {
			return nil, err
		}
		if len(outs) != 1 || outs[0].Artifact.Kind != action.File {
			return nil, fmt.Errorf("fixed: such an action makes exactly one file")
		}
		outs[0].Artifact.Fixed = d
	}
	return starlark.None, c.newAction(thread, act, outs, ins)
}

func fixedDigest(d *starlark.Dict) (digest.Digest, error) {
	h, _, _ := d.Get(starlark.String("sha256"))
	n, _, _ := d.Get(starlark.String("size"))
	s, ok := starlark.AsString(h)
	i, ok2 := n.(starlark.Int)
	if !ok || !ok2 {
		return digest.Digest{}, fmt.Errorf("fixed: want {\"sha256\": string, \"size\": int}")
	}
	size, ok := i.Int64()
	if !ok {
		return digest.Digest{}, fmt.Errorf("fixed: size %s is out of range", i)
	}
	return digest.New(s, size)
}

func (c *ruleContext) newBuiltin(thread *starlark.Thread, name, mnemonic string, params map[string]any, outs, ins []*File) error {
	b, err := json.Marshal(params) // keys come out sorted
	if err != nil {
		return err
	}
	return c.newAction(thread, &action.Action{Builtin: name, Mnemonic: mnemonic, Root: -1, Params: string(b)}, outs, ins)
}
