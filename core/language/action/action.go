// Package action is the action graph: what analysis produces and execution
// consumes. It is plain data. Nothing here reads a file or knows Starlark.
package action

import (
	"time"

	"tool/core/model/digest"
)

// Kind tells whether an artifact is one file or a whole tree.
type Kind uint8

// The kinds of artifacts.
const (
	File Kind = iota
	Tree
)

func (k Kind) String() string {
	if k == Tree {
		return "directory"
	}
	return "file"
}

// OutPrefix starts the exec path of everything that an action makes.
const OutPrefix = "out/"

// StorePrefix is where objects are seen, in a sandbox and on a machine.
const StorePrefix = "/tool/store/"

// Artifact is a file or tree that actions consume or produce.
type Artifact struct {
	ID       int           // index into Graph.Artifacts
	Path     string        // exec path: "pkg/a.c" for a source, "out/pkg/a.o" for an output
	Kind     Kind          //
	Owner    string        // label of the target it belongs to
	Producer int           // index into Graph.Actions; -1 for a source
	Source   string        // a source's path relative to the workspace; "" for outputs
	Embedded bool          // Source names a file of the embedded rule library
	Fixed    digest.Digest // the content, where it is known beforehand (a pin); else zero
}

// Placeholder stands for the artifact's store path in arguments, environment
// and written content until the artifact exists.
func (a *Artifact) Placeholder() string { return StorePrefix + "@{" + a.Path + "}" }

// Action is one step. Either Builtin names an in-process operation, or Args is
// a command for the sandbox.
type Action struct {
	ID       int    // index into Graph.Actions
	Owner    string // label
	Mnemonic string // "GoCompile", "UnpackDeb"
	Progress string // one line for people; may be empty
	Position string // file:line:col of the call that made it

	Builtin string // "unpack-deb@1"; "" for a command
	Params  string // the builtin's parameters, JSON; may hold placeholders

	Args    []Arg
	Env     []string // KEY=VALUE, sorted; all that the command sees
	Root    int      // artifact whose tree is the sandbox's /usr, /bin, …; -1 for none
	Tmpfs   bool     // /tmp in memory
	Inputs  []int    // artifacts, sorted by path, unique
	Outputs []int    // artifacts, in declaration order
	Timeout time.Duration
	Local   bool // tag no-remote-cache: results stay on this machine
}

// Arg is one or more words of a command line.
type Arg struct {
	Text string // may hold placeholders

	// Where Expand is set, the arg stands for the files below the tree
	// artifact Tree, sorted; Format has one %s and Before precedes each.
	Expand bool
	Tree   int
	Format string
	Before string
	Join   string // with Joined: one word, joined by Join
	Joined bool

	// A ParamFile arg spills the args of Params into a file when the command
	// line would be too long (or Always) and stands for Text with %s = path.
	ParamFile bool
	Always    bool
	Multiline bool // one arg a line, unquoted; else shell-quoted
	Params    []Arg
}

// Graph is a set of actions and the artifacts between them.
type Graph struct {
	Artifacts []*Artifact
	Actions   []*Action
}
