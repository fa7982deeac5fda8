package debian

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tool/core/model/digest"
	"tool/core/packages/deb822"
	"tool/core/packages/lock"
)

// Release is what an archive's InRelease file says, once its signature was
// checked.
type Release struct {
	Suite, Codename string
	Date            time.Time
	ValidUntil      time.Time // zero: for ever
	ByHash          bool      // indexes can be had by their digest
	NoAll           bool      // "all" packages are in every architecture's index
	Archs           []string
	files           map[string]digest.Digest
}

// File returns the digest of an index, by its path below the Release file.
func (r *Release) File(path string) (digest.Digest, bool) {
	d, ok := r.files[path]
	return d, ok
}

// ParseRelease reads the text of a Release file; name is what errors call it.
func ParseRelease(name string, text []byte) (*Release, error) {
	p, err := deb822.One(name, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r := &Release{
		Suite: p.Get("Suite"), Codename: p.Get("Codename"),
		ByHash: p.Get("Acquire-By-Hash") == "yes",
		NoAll:  p.Get("No-Support-for-Architecture-all") == "Packages",
		Archs:  strings.Fields(p.Get("Architectures")),
		files:  map[string]digest.Digest{},
	}
	for field, to := range map[string]*time.Time{"Date": &r.Date, "Valid-Until": &r.ValidUntil} {
		v := p.Get(field)
		if v == "" {
			continue
		}
		t, err := time.Parse("Mon, _2 Jan 2006 15:04:05 MST", v)
		if err != nil {
			t, err = time.Parse("Mon, _2 Jan 2006 15:04:05 -0700", v)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s %q is not a date", name, field, v)
		}
		*to = t
	}
	for _, line := range p.Lines("SHA256") {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("%s: SHA256: bad line %.80q", name, line)
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: SHA256: bad size %q", name, f[1])
		}
		d, err := digest.New(f[0], size)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := lock.CheckPath(f[2]); err != nil {
			return nil, fmt.Errorf("%s: SHA256: %w", name, err)
		}
		r.files[f[2]] = d
	}
	if len(r.files) == 0 {
		return nil, fmt.Errorf("%s: no SHA256 sums", name)
	}
	return r, nil
}

// Check reports why the release is not to be used at a time, or not for a
// suite: an attacker may answer with a release that is old or another one.
func (r *Release) Check(suite string, now time.Time) error {
	const skew = 24 * time.Hour // clocks are wrong more often than mirrors lie
	switch {
	case !r.ValidUntil.IsZero() && now.After(r.ValidUntil):
		return fmt.Errorf("it was valid until %s: the mirror is out of date, or this machine's clock is wrong; where a mirror stands still on purpose, give its source Check-Valid-Until: no", r.ValidUntil.UTC().Format(time.RFC3339))
	case !r.Date.IsZero() && r.Date.After(now.Add(skew)):
		return fmt.Errorf("it is from the future (%s): this machine's clock is wrong", r.Date.UTC().Format(time.RFC3339))
	case (r.Suite != "" || r.Codename != "") && r.Suite != suite && r.Codename != suite:
		return fmt.Errorf("it is of the suite %q, codename %q", r.Suite, r.Codename)
	}
	return nil
}
