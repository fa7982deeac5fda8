package unpack

import (
	"fmt"
	"path"
	"strings"

	"tool/core/model/merkle"
)

// Options say what of an archive is taken and how much it may hold.
type Options struct {
	// Prefix is removed from every entry's path; entries outside it are left
	// out, and it is an error if there are none inside. "" takes everything.
	Prefix string
	// Strip removes that many leading path elements (after Prefix). Entries
	// with fewer elements are left out.
	Strip int
	// Exclude are patterns over the resulting paths: path.Match per element,
	// and a last element "**" for everything below a directory.
	Exclude []string
	// Executable are patterns of files to mark executable whatever their mode:
	// zips often carry no modes.
	Executable []string
	// NoModes takes no file for executable because the archive's mode says so.
	NoModes bool
	// KeepProps keeps owners and unusual modes. Deb always does. An archive of
	// sources was owned by whoever packed it, which is no one's business here.
	KeepProps bool
	// AbsoluteLinks allows symbolic links with absolute targets, which mean
	// something only in a tree that becomes a root. Deb always allows them.
	AbsoluteLinks bool
	// Each, if set, is told of every file and symbolic link that is taken,
	// under its name in the archive. An error stops the unpacking.
	Each func(name string, n merkle.Node) error
	// Limits bound the archive; zero fields take the defaults.
	Limits Limits

	mergeUsr bool // remap bin, sbin, lib* below usr
}

// Limits bound what an archive may make of its compressed bytes.
type Limits struct {
	Bytes   int64 // sum of all files' sizes; 0 means 16 GiB
	File    int64 // one file's size in bytes; 0 means 8 GiB
	Entries int   // entries of any kind; 0 means 1,000,000
	// Ratio is how many bytes may come from one compressed byte, checked once
	// Floor bytes came out; 0 means 400.
	Ratio int64
	// Floor is the number of unpacked bytes below which Ratio is not looked
	// at, because small archives of zeros are harmless and not unusual; 0
	// means 64 MiB.
	Floor int64
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 16 << 30
	}
	if l.File == 0 {
		l.File = 8 << 30
	}
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Ratio == 0 {
		l.Ratio = 400
	}
	if l.Floor == 0 {
		l.Floor = 64 << 20
	}
	return l
}

// LimitError reports an archive that holds more than it may.
type LimitError struct {
	What  string // "bytes", "entries", …
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("more than %d %s: refused as a decompression bomb", e.Limit, e.What)
}

// patterns is a compiled list of globs.
type patterns [][]string

func compile(globs []string) (patterns, error) {
	var out patterns
	for _, g := range globs {
		elems := strings.Split(g, "/")
		for i, e := range elems {
			if e == "**" {
				if i != len(elems)-1 {
					return nil, fmt.Errorf("pattern %q: ** may only be the last element", g)
				}
				continue
			}
			if _, err := path.Match(e, ""); err != nil || e == "" {
				return nil, fmt.Errorf("pattern %q: bad element %q", g, e)
			}
		}
		out = append(out, elems)
	}
	return out, nil
}

// match reports whether p is named by a pattern.
func (ps patterns) match(p string) bool {
	for _, elems := range ps {
		if matchOne(elems, p) {
			return true
		}
	}
	return false
}

func matchOne(elems []string, p string) bool {
	for i, e := range elems {
		if e == "**" {
			return true // the directory matched and there is something below it
		}
		head, tail, more := strings.Cut(p, "/")
		if ok, _ := path.Match(e, head); !ok {
			return false
		}
		if !more {
			return i == len(elems)-1
		}
		p = tail
	}
	return true
}
