package exec

import (
	"context"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// Spawn is a command that is ready to run: every input has a digest, every
// placeholder a path.
type Spawn struct {
	Name    string // for people: the owner's label and mnemonic
	Argv    []string
	Env     []string      // KEY=VALUE; nothing else is set
	Root    digest.Digest // tree laid at / (usr, bin, etc, …); zero for none
	Inputs  []Input       // sorted by path, below the exec root
	Objects []Object      // what is seen below /tool/store
	Outputs []Output
	Timeout time.Duration // zero: none
	Tmpfs   bool          // /tmp in memory
	Keep    bool          // --sandbox_debug: leave the sandbox of a failed command, tell where
}

// Input is a file or tree at Path relative to the exec root.
type Input struct {
	Path string
	Node merkle.Node // File or Dir
}

// Object is a store object made visible to the command.
type Object struct {
	Ref  string // "<hash>-<name>"
	Node merkle.Node
}

// Output is a file (or with Tree a directory) that the command must write.
type Output struct {
	Path string
	Tree bool
}

// Result is what a command did. A non-zero exit is a Result, not an error.
type Result struct {
	ExitCode int            // 128+n where signal n ended it
	TimedOut bool           //
	Stdout   []byte         // at most MaxLog bytes: the head and the tail
	Stderr   []byte         // likewise
	Outputs  []*merkle.Node // one for each Spawn.Outputs; nil where it was not written
	Problems []string       // what is wrong with outputs, beyond being missing
	Kept     string         // with Keep: how to enter the sandbox, for people
	Took     time.Duration
}

// MaxLog bounds the bytes kept of each of a command's two streams.
const MaxLog = 4 << 20

// Runner runs spawns. An error means that the runner could not do its work;
// what the command did wrong is in the Result.
type Runner interface {
	Run(ctx context.Context, s *Spawn) (*Result, error)
}
