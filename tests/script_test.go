package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tool/core/model/digest"
)

// TestScripts runs testdata/script. Beyond what testscript has, a script may say
//
//	workspace [cc]      make the current folder a workspace with a shell (and gcc)
//	own-store [NAME]    use an empty store instead of one with the shell unpacked
//	tool ARG...         run the program
//	code N              the program's exit code was N
//	executed N          the build before executed N actions
//	edit FILE OLD NEW   replace text in a file
//	flip FILE           flip a bit in the middle of a file
//	ref VAR TARGET      set VAR to the reference of a target's output
//	blob VAR FILE       set VAR to where the store keeps a file's bytes
//
// What the program writes is compared after the parts that differ from run to
// run have been replaced: see stable.
func TestScripts(t *testing.T) {
	needStore(t)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		UpdateScripts:      os.Getenv("TOOL_UPDATE") != "",
		RequireUniqueNames: true,
		Setup:              setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"workspace": cmdWorkspace, "own-store": cmdOwnStore, "tool": cmdTool, "code": cmdCode,
			"executed": cmdExecuted, "edit": cmdEdit, "flip": cmdFlip, "ref": cmdRef, "blob": cmdBlob,
		},
	})
}

type lastKey struct{}

// last is what the program did last in a script.
type last struct {
	code   int
	stdout string // as it was
}

func setUp(e *testscript.Env) error {
	m, err := shared.mirror()
	if err != nil {
		return err
	}
	warm, err := shared.store()
	if err != nil {
		return err
	}
	store := filepath.Join(e.WorkDir, ".store")
	if err := cloneStore(warm, store); err != nil {
		return err
	}
	e.Values[lastKey{}] = &last{}
	e.Setenv("TOOL_STORE", store)
	e.Setenv("TOOL_STATE", filepath.Join(e.WorkDir, ".state"))
	e.Setenv("MIRROR", m.dir)
	e.Setenv("PATH", filepath.Dir(shared.tool)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	e.Setenv("TOOL", shared.tool)
	e.Setenv("NO_COLOR", "1")
	e.Setenv("TOOL_VBOXMANAGE", noVirtualBox)
	return nil
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func cmdWorkspace(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 0 || len(args) == 1 && args[0] == "cc"), "workspace [cc]")
	m, err := shared.mirror()
	ts.Check(err)
	sets := []string{shellSet}
	if len(args) == 1 {
		sets = append(sets, ccSet)
	}
	ts.Check(m.workspace(ts.MkAbs("."), sets...))
}

func cmdOwnStore(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) <= 1, "own-store [NAME]")
	ts.Setenv("TOOL_STORE", ts.Getenv("WORK")+"/.own-store"+strings.Join(args, ""))
}

func cmdTool(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(shared.tool, args...)
	l := ts.Value(lastKey{}).(*last)
	l.code, l.stdout = 0, ts.ReadFile("stdout")
	stdout, stderr := stable(ts, l.stdout), stable(ts, ts.ReadFile("stderr"))
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		l.code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	fmt.Fprint(ts.Stdout(), stdout)
	fmt.Fprint(ts.Stderr(), stderr)
	switch {
	case l.code < 0:
		ts.Fatalf("tool was killed: %v", err)
	case !neg && l.code != 0:
		ts.Fatalf("tool failed with exit code %d", l.code)
	case neg && l.code == 0:
		ts.Fatalf("tool succeeded unexpectedly")
	}
}

var (
	hashPart   = regexp.MustCompile(`\b[0-9a-z]{32}-`)
	sha256Part = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	timePart   = regexp.MustCompile(`\b(\d+m)?\d+\.\d+(µs|ms|s)\b|\b\d+(µs|ms)\b`)
	jsonTime   = regexp.MustCompile(`("seconds"|"Took"):[0-9.e+-]+`)
	datePart   = regexp.MustCompile(`\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`)
	rootPart   = regexp.MustCompile(`\bbuild/[0-9a-f]{8}/`)
	library    = regexp.MustCompile(`(@rules//[^ :]+\.star):\d+:\d+`)
	progress   = regexp.MustCompile(`(?m)^(\[\d+/\d+\]|loading and analysing|building) TIME.*\n`)
)

// stable replaces what differs from run to run: where things are, hashes,
// times; and leaves out the lines that tell how far a slow build is.
func stable(ts *testscript.TestScript, s string) string {
	s = strings.ReplaceAll(s, ts.Getenv("TOOL_STORE"), "$TOOL_STORE")
	s = strings.ReplaceAll(s, ts.Getenv("MIRROR"), "$MIRROR")
	s = strings.ReplaceAll(s, ts.Getenv("WORK"), "$WORK")
	s = hashPart.ReplaceAllString(s, "HASH-")
	s = sha256Part.ReplaceAllString(s, "SHA256")
	s = jsonTime.ReplaceAllString(s, "$1:0")
	s = datePart.ReplaceAllString(s, "DATE")
	s = timePart.ReplaceAllString(s, "TIME")
	s = rootPart.ReplaceAllString(s, "build/WORKSPACE/")
	s = library.ReplaceAllString(s, "$1:LINE") // no test of ours is about where in the library
	return progress.ReplaceAllString(s, "")
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "code N")
	if got := strconv.Itoa(ts.Value(lastKey{}).(*last).code); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

var counts = regexp.MustCompile(`(?m)^\d+ actions: (\d+) executed, `)

func cmdExecuted(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "executed N")
	m := counts.FindStringSubmatch(ts.Value(lastKey{}).(*last).stdout)
	if m == nil {
		ts.Fatalf("the command before was no build")
	}
	if m[1] != args[0] {
		ts.Fatalf("%s actions were executed, want %s", m[1], args[0])
	}
}

func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "edit FILE OLD NEW")
	s := ts.ReadFile(args[0])
	lines := strings.NewReplacer(`\n`, "\n")
	old, now := lines.Replace(args[1]), lines.Replace(args[2])
	if strings.Count(s, old) != 1 {
		ts.Fatalf("%s holds %q %d times, want once", args[0], old, strings.Count(s, old))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(s, old, now, 1)), 0o644))
}

func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "flip FILE")
	ts.Check(flip(ts.MkAbs(args[0])))
}

// flip flips a bit in the middle of a file, as a failing disk does: the
// file's times and mode stay.
func flip(file string) error {
	fi, err := os.Stat(file)
	if err != nil {
		return err
	}
	if err := os.Chmod(file, 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, fi.Size()/2)
	b[0] ^= 4
	_, err2 := f.WriteAt(b, fi.Size()/2)
	return errors.Join(err, err2, f.Close(), os.Chtimes(file, fi.ModTime(), fi.ModTime()), os.Chmod(file, fi.Mode()))
}

func cmdRef(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "ref VAR TARGET")
	ts.Check(ts.Exec(shared.tool, "path-info", args[1]))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func cmdBlob(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "blob VAR FILE")
	f, err := os.Open(ts.MkAbs(args[1]))
	ts.Check(err)
	defer f.Close()
	d, err := digest.FromReader(f)
	ts.Check(err)
	p := filepath.Join(ts.Getenv("TOOL_STORE"), "blobs", d.Hex()[:2], d.Hex())
	if _, err := os.Stat(p); err != nil {
		p += ".x" // it is executable
	}
	_, err = os.Stat(p)
	ts.Check(err)
	ts.Setenv(args[0], p)
}
