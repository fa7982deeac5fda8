package main

import (
	"fmt"
	"io"
	"strings"

	"tool/core/machines/deploy"
	"tool/core/machines/system"
)

// mostPackages is how many packages a plan names for one machine.
const mostPackages = 12

// printPlan shows a plan's four levels: resources, machines, packages, units.
func printPlan(w io.Writer, p *deploy.Plan) {
	pal := newPalette(w)
	if p.Empty() {
		fmt.Fprintf(w, "%s: nothing to do, %s up to date with generation %d\n", pal.bold(p.Name), machines(len(p.Machines), "is", "are"), p.Generation)
		return
	}
	fmt.Fprintf(w, "%s, generation %d, of %s\n", pal.bold(p.Name), p.Generation, p.Label)
	if p.Note != "" {
		fmt.Fprintln(w, p.Note)
	}
	fmt.Fprintln(w, pal.bold("Resources"))
	keep := 0
	for i := range p.Machines {
		m := &p.Machines[i]
		if m.Resource == deploy.ResourceKeep {
			keep++
			continue
		}
		fmt.Fprintf(w, "  %s %s: %s\n", pal.sign(m.Resource), m.Name, resourceText(p, m))
	}
	if keep > 0 {
		fmt.Fprintf(w, "    %s as they are\n", machines(keep, "stays", "stay"))
	}
	fmt.Fprintln(w, pal.bold("Machines"))
	for i := range p.Machines {
		m := &p.Machines[i]
		if m.System == deploy.SystemNone {
			continue
		}
		fmt.Fprintf(w, "  %s: %s\n", m.Name, systemText(p, m))
		printPackages(w, pal, m)
		printUnits(w, pal, m)
		if m.Snapshot != "" {
			fmt.Fprintf(w, "    snapshot %s first: programs from before could not read what %s will have written\n", m.Snapshot, strings.Join(m.Crosses, ", "))
		}
		if m.Reboot != "" {
			fmt.Fprintf(w, "    after the next reboot: %s\n", m.Reboot)
		}
	}
	if len(p.Waves) > 1 {
		fmt.Fprintln(w, pal.bold("Order"))
		for i, wave := range p.Waves {
			fmt.Fprintf(w, "  %d. %s\n", i+1, strings.Join(wave, ", "))
		}
	}
	for _, r := range p.Refusals {
		fmt.Fprintf(w, "%s %s: %s; %s allows it\n", pal.red("refused:"), r.Machine, r.Text, r.Flag)
	}
}

func machines(n int, one, many string) string {
	if n == 1 {
		return "1 machine " + one
	}
	return fmt.Sprintf("%d machines %s", n, many)
}

func (p palette) sign(resource string) string {
	switch resource {
	case deploy.ResourceCreate:
		return p.green("+")
	case deploy.ResourceDestroy:
		return p.red("-")
	case deploy.ResourceReplace:
		return p.red("-/+")
	}
	return "~"
}

func resourceText(p *deploy.Plan, m *deploy.MachinePlan) string {
	parts := []string{m.Resource}
	switch m.Resource {
	case deploy.ResourceCreate, deploy.ResourceReplace:
		parts[0] = fmt.Sprintf("%s with %s, %d MiB, %s, disk %d MiB", m.Resource, p.Backend, m.Hardware.Memory, count(m.Hardware.CPUs, "processor"), m.Hardware.Disk)
		if m.Address != "" {
			parts = append(parts, m.Address)
		}
		if m.HostAddr != "" {
			parts = append(parts, "from here "+m.HostAddr)
		}
	}
	if m.Adopted && m.Resource == deploy.ResourceCreate {
		parts = nil
		for _, s := range m.Steps {
			parts = append(parts, s.Text)
		}
	}
	if m.Why != "" && m.System != deploy.SystemUnseen {
		parts = append(parts, m.Why)
	}
	if m.Resource != deploy.ResourceCreate {
		for _, s := range m.Steps {
			parts = append(parts, s.Text)
		}
	}
	return strings.Join(parts, "; ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func systemText(p *deploy.Plan, m *deploy.MachinePlan) string {
	var s string
	switch m.System {
	case deploy.SystemBoot:
		how := "boots"
		if m.Adopted {
			how = "switches to"
		}
		s = fmt.Sprintf("%s %s (closure %s)", how, m.To, bytesize(m.ClosureBytes))
	case deploy.SystemSwitch:
		how := map[string]string{"switch": "switches", "boot": "goes at its next boot", "test": "switches until its next boot"}[p.Mode]
		s = fmt.Sprintf("%s to %s (closure %s, %s in %s to send)", how, m.To, bytesize(m.ClosureBytes), bytesize(m.SendBytes), count(m.SendBlobs, "blob"))
	case deploy.SystemResume:
		s = "is confirmed with " + string(m.To)
	case deploy.SystemUnseen:
		s = "goes to " + string(m.To)
	default:
		s = "up to date"
		if m.Facts {
			s = "stays; names and addresses are written anew"
		}
	}
	if m.Why != "" && (m.Resource == deploy.ResourceKeep || m.System == deploy.SystemUnseen) {
		s += ": " + m.Why
	}
	return s
}

func printPackages(w io.Writer, pal palette, m *deploy.MachinePlan) {
	if m.System == deploy.SystemBoot {
		fmt.Fprintf(w, "    %s, %s\n", count(len(m.Packages), "package"), count(len(m.Units), "unit"))
		return
	}
	for i, c := range m.Packages {
		if i == mostPackages {
			fmt.Fprintf(w, "    … and %s more\n", count(len(m.Packages)-i, "package"))
			break
		}
		fmt.Fprintf(w, "    %s\n", packageText(pal, c))
	}
}

func packageText(pal palette, c system.PackageChange) string {
	switch {
	case c.Old == "":
		return pal.green("+") + " " + c.Name + " " + c.New
	case c.New == "":
		return pal.red("-") + " " + c.Name + " " + c.Old
	case c.Old == c.New:
		return "~ " + c.Name + " " + c.New + ", rebuilt"
	}
	return "~ " + c.Name + " " + c.Old + " → " + c.New
}

// printUnits shows what happens to units and why. Units that start on a new
// machine are not news.
func printUnits(w io.Writer, pal palette, m *deploy.MachinePlan) {
	if m.System == deploy.SystemBoot {
		return
	}
	for _, u := range m.Units {
		fmt.Fprintf(w, "    %s %s%s\n", pal.bold(string(u.Action)), u.Unit, pal.dim(": "+reasonsText(u.Reasons)))
	}
}

func reasonsText(reasons []system.Reason) string {
	var why []string
	for i, r := range reasons {
		if i == 3 {
			why = append(why, fmt.Sprintf("and %d more", len(reasons)-i))
			break
		}
		why = append(why, r.String())
	}
	return strings.Join(why, ", ")
}
