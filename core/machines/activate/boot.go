package activate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tool/core/machines/facts"
	"tool/core/machines/pack"
	"tool/core/machines/seed"
	"tool/core/storage/cas"
)

// Boot makes the root file system ready for its service manager: it takes a new
// seed in, decides which generation starts, and writes everything that is made
// of it and of the facts. The initrd runs it in a chroot, before systemd. seed
// is the path of the seed disk, or "".
func (m *Machine) Boot(ctx context.Context, seedPath string) error {
	return m.withBallast(func() error { return m.boot(ctx, seedPath) })
}

func (m *Machine) boot(ctx context.Context, seedPath string) error {
	if seedPath != "" {
		if err := m.takeSeed(ctx, seedPath); err != nil {
			return fmt.Errorf("take in the seed %s: %w", seedPath, m.explainFull(err))
		}
	}
	f, err := m.Facts()
	if err != nil {
		return fmt.Errorf("%w (a machine gets them from its seed disk, which must be attached when it starts first)", err)
	}
	candidates, trial, err := m.candidates()
	if err != nil {
		return err
	}
	var failed []error
	for _, n := range candidates {
		err := m.bootInto(ctx, n, n == trial, f)
		if err == nil {
			return nil
		}
		m.log("generation %d cannot be started: %v", n, err)
		failed = append(failed, fmt.Errorf("generation %d: %w", n, err))
	}
	if len(failed) == 0 {
		return errors.New("the machine has no generation to start: attach its seed disk")
	}
	return fmt.Errorf("no generation can be started: %w", m.explainFull(errors.Join(failed...)))
}

// takeSeed takes in a seed whose ID is new, or whose generation has been lost.
func (m *Machine) takeSeed(ctx context.Context, path string) error {
	disk, err := os.Open(path)
	if err != nil {
		return err
	}
	defer disk.Close()
	s, err := seed.Open(disk)
	if err != nil {
		return err
	}
	h := s.Header
	taken, err := cas.ReadSmall(m.state("seed"), 256)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if strings.TrimSpace(string(taken)) == h.ID {
		if g, err := m.Generation(h.Generation); err == nil {
			if _, err := m.Manifest(g.Ref); err == nil {
				return nil
			}
		} else if _, err := m.Generations(); err == nil && m.hasOthers() {
			return nil // collected since
		}
	}
	m.log("taking in the seed of %s", h.Facts.Machine)
	if err := m.CheckSpace(h.Pack.Size * 2); err != nil {
		return err
	}
	lease, err := m.Store.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Release()
	began := m.Uptime()
	got, err := pack.Read(ctx, s.Pack(), m.Store)
	if err != nil {
		return err
	}
	m.log("it brought %d blobs and %d objects in %.1f s", got.Blobs, len(got.Objects), (m.Uptime() - began).Seconds())
	if old, err := m.Generation(h.Generation); err == nil && old.Ref != h.Ref {
		// A machine that is set up anew on its old disk: the seed's word counts.
		if err := os.Remove(m.generationFile(h.Generation)); err != nil {
			return err
		}
	}
	began = m.Uptime()
	if err := m.Stage(ctx, h.Generation, h.Ref, h.Label, h.Facts); err != nil {
		return err
	}
	m.log("laid out in %.1f s", (m.Uptime() - began).Seconds())
	return writeFile(m.state("seed"), []byte(h.ID+"\n"), owned{mode: 0o600})
}

// hasOthers reports whether any generation could be started.
func (m *Machine) hasOthers() bool {
	all, err := m.Generations()
	return err == nil && slices.ContainsFunc(all, func(g Generation) bool {
		_, err := m.Manifest(g.Ref)
		return err == nil
	})
}

// candidates returns the generations to try, best first, and which of them is
// on trial (0: none). A trial is spent here: its next start would be one too many.
func (m *Machine) candidates() (all []int, trial int, err error) {
	wanted := m.wantedOnCommandLine()
	trial, err = m.spendTrial()
	if err != nil {
		return nil, 0, err
	}
	if wanted != 0 && wanted != trial || trial != 0 && !m.fits(trial, true) {
		trial = 0
	}
	if err := m.endInterrupted(trial); err != nil {
		return nil, 0, fmt.Errorf("end the switch that the machine went down in: %w", err)
	}
	confirmed, err := m.Pointer(Confirmed)
	if err != nil {
		m.log("%v", err)
	}
	active, err := m.Pointer(Active)
	if err != nil {
		m.log("%v", err)
	}
	generations, err := m.Generations()
	if err != nil {
		return nil, 0, err
	}
	all = []int{wanted, trial}
	// Somebody else may have loaded the kernel, and it need not be the one of the
	// newest generation: without its modules there would be no network.
	if confirmed != 0 && !m.fits(confirmed, false) {
		for _, g := range slices.Backward(generations) {
			if !g.Confirmed.IsZero() && m.fits(g.Number, false) {
				m.log("generation %d has another kernel than the one that runs; generation %d has this one", confirmed, g.Number)
				all = append(all, g.Number)
				break
			}
		}
	}
	all = append(all, confirmed, active)
	for _, g := range slices.Backward(generations) {
		all = append(all, g.Number)
	}
	var out []int
	for _, n := range all {
		if n > 0 && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, trial, nil
}

// wantedOnCommandLine returns N of tool.generation=N, the last one.
func (m *Machine) wantedOnCommandLine() int {
	b, err := os.ReadFile(m.path("proc/cmdline"))
	if err != nil {
		return 0
	}
	wanted := 0
	for word := range strings.FieldsSeq(string(b)) {
		if v, ok := strings.CutPrefix(word, "tool.generation="); ok {
			if n, err := strconv.Atoi(v); err == nil && n > 0 {
				wanted = n
			}
		}
	}
	return wanted
}

// fits reports whether the kernel that runs is the one of generation n, and was
// given its command line, where that matters. What cannot be told fits.
func (m *Machine) fits(n int, cmdline bool) bool {
	manifest, err := m.manifestOf(n)
	if err != nil || manifest == nil || manifest.Boot == nil {
		return true
	}
	release, err := os.ReadFile(m.path("proc/sys/kernel/osrelease"))
	if err != nil {
		return true
	}
	if strings.TrimSpace(string(release)) != manifest.Boot.Release {
		return false
	}
	given, err := os.ReadFile(m.path("proc/cmdline"))
	if err != nil || !cmdline {
		return true
	}
	words := strings.Fields(string(given))
	for w := range strings.FieldsSeq(manifest.Boot.Cmdline) {
		if !slices.Contains(words, w) {
			return false
		}
	}
	return true
}

func (m *Machine) bootInto(ctx context.Context, n int, trial bool, f *facts.Facts) error {
	g, err := m.Generation(n)
	if err != nil {
		return err
	}
	manifest, err := m.Manifest(g.Ref)
	if err != nil {
		return err
	}
	o, err := m.Store.Get(g.Ref)
	if err != nil {
		return err
	}
	began := m.Uptime()
	// A loss of power may have taken its tree.
	if _, err := m.Store.Realise(ctx, g.Ref); err != nil {
		return err
	}
	if err := m.flip(n, g.Ref); err != nil {
		return err
	}
	if err := m.layOut(o.Node.Digest); err != nil {
		return err
	}
	if err := m.writeEtc(o.Node.Digest); err != nil {
		return err
	}
	if err := m.writeIdentity(o.Node.Digest, manifest, f); err != nil {
		return err
	}
	if _, err := m.writeNetwork(f); err != nil {
		return err
	}
	if err := m.recordBoot(g); err != nil {
		return err
	}
	if trial {
		if err := m.bootedTrial(n); err != nil {
			return err
		}
	}
	m.log("starting generation %d, %s, made ready in %.1f s", n, g.Ref.Name(), (m.Uptime() - began).Seconds())
	return nil
}

// booted is below /run: what this start of the machine began with.
const booted = "run/tool/booted"

func (m *Machine) recordBoot(g *Generation) error {
	if err := os.MkdirAll(m.path(filepath.Dir(booted)), 0o755); err != nil {
		return err
	}
	if err := writeFile(m.path(booted+"-generation"), fmt.Appendf(nil, "%d\n", g.Number), owned{mode: 0o644, lazy: true}); err != nil {
		return err
	}
	return linkTo("/tool/store/"+string(g.Ref), m.path(booted))
}

// Booted returns the generation that this start of the machine began with; 0
// where it began with none.
func (m *Machine) Booted() int {
	b, err := os.ReadFile(m.path(booted + "-generation"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// settleUnit is not of any generation: it is made in /run for a start on trial.
const settleUnit = `[Unit]
Description=Health checks of the generation on trial
After=basic.target

[Service]
ExecStart=/tool/agent/current/tool agent settle
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-900
`

func (m *Machine) writeSettleUnit() error {
	dir := m.path("run/systemd/system")
	if err := os.MkdirAll(filepath.Join(dir, "multi-user.target.wants"), 0o755); err != nil {
		return err
	}
	const name = "tool-agent-boot.service"
	if err := writeFile(filepath.Join(dir, name), []byte(settleUnit), owned{mode: 0o644, lazy: true}); err != nil {
		return err
	}
	return linkTo("../"+name, filepath.Join(dir, "multi-user.target.wants", name))
}

// trialFile says that a generation is to be started once.
type trialFile struct {
	Generation int       `json:"generation"`
	Created    time.Time `json:"created"`
}

// spendTrial returns the generation whose one try is left, and takes the try
// away durably; 0 where there is none.
func (m *Machine) spendTrial() (int, error) {
	var t trialFile
	ok, err := readJSON(m.state("trial.json"), &t)
	if err != nil {
		m.log("%v", err)
	}
	if !ok && err == nil {
		return 0, nil
	}
	if err := os.Remove(m.state("trial.json")); err != nil {
		return 0, fmt.Errorf("spend the trial: %w", err)
	}
	return t.Generation, syncDir(m.state())
}
