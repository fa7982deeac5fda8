package activate

import (
	"context"
	"fmt"
	"slices"

	"tool/core/machines/system"
)

// An adopted machine's own system has no manifest, but units that run, and some
// of them have the names of a generation's: sshd above all. These are not
// started on the way there, nor stopped on the way back, but restarted.

// originUnits is a file of state: the units of generations that the machine's
// own system ran too.
func (m *Machine) originUnits() string { return m.state("origin-units.json") }

// respectOrigin corrects the changes between generation 0 and another.
func (m *Machine) respectOrigin(ctx context.Context, from, to int, manifest *system.Manifest, c *system.Changes) error {
	if !m.Adopted() || from != 0 && to != 0 || from == to {
		return nil
	}
	var own []string
	if _, err := readJSON(m.originUnits(), &own); err != nil {
		return err
	}
	if from == 0 {
		found, err := m.Systemd.Show(ctx, c.With(system.Start)...)
		if err != nil {
			return fmt.Errorf("look at the units: %w", err)
		}
		for _, u := range found {
			if u.Well() && !slices.Contains(own, u.Unit) {
				own = append(own, u.Unit)
			}
		}
		slices.Sort(own)
		if err := writeJSON(m.originUnits(), own); err != nil {
			return fmt.Errorf("write down which units the machine has of its own: %w", err)
		}
	}
	for i := range c.Units {
		u := &c.Units[i]
		if !slices.Contains(own, u.Unit) {
			continue
		}
		u.Action = system.Restart
		if s := manifest.Service(u.Unit); s != nil && s.OnChange == "reload" {
			u.Action = system.Reload
		}
	}
	return nil
}
