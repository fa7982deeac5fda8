package activate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tool/core/machines/facts"
	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// wantedFiles returns the files of /etc that activation writes for a system:
// all that is a function of the system and the facts.
func (m *Machine) wantedFiles(tree digest.Digest, manifest *system.Manifest, f *facts.Facts) (map[string]etcFile, error) {
	a, err := m.accountsOf(tree, manifest)
	if err != nil {
		return nil, err
	}
	if f.Adopted {
		if err := m.keepAccounts(a); err != nil {
			return nil, err
		}
	}
	files := a.files()
	if f.Adopted { // its name and addresses are its own
		return files, nil
	}
	files["machine-id"] = etcFile{[]byte(f.MachineID + "\n"), owned{mode: 0o444}}
	files["hostname"] = etcFile{[]byte(f.Machine + "\n"), owned{mode: 0o644}}
	files["hosts"] = etcFile{hostsFile(f), owned{mode: 0o644}}
	files["subuid"] = etcFile{nil, owned{mode: 0o644}}
	files["subgid"] = etcFile{nil, owned{mode: 0o644}}
	if len(f.Nameservers) > 0 {
		files["resolv.conf"] = etcFile{resolvFile(f.Nameservers), owned{mode: 0o644}}
	}
	return files, nil
}

func hostsFile(f *facts.Facts) []byte {
	var b strings.Builder
	b.WriteString("# Written by tool from the deployment's plan.\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	self := false
	for _, h := range f.Hosts {
		self = self || h.Name == f.Machine
		fmt.Fprintf(&b, "%s %s\n", h.Address, h.Name)
	}
	if !self {
		fmt.Fprintf(&b, "127.0.1.1 %s\n", f.Machine)
	}
	return []byte(b.String())
}

func resolvFile(servers []netip.Addr) []byte {
	var b strings.Builder
	b.WriteString("# Written by tool from the deployment's plan.\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	return []byte(b.String())
}

// writeIdentity writes what no build may know: accounts, names, addresses, keys.
func (m *Machine) writeIdentity(tree digest.Digest, manifest *system.Manifest, f *facts.Facts) error {
	files, err := m.wantedFiles(tree, manifest, f)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if f.Adopted {
			if err := m.keepOriginal(name); err != nil {
				return fmt.Errorf("keep the machine's own /etc/%s: %w", name, err)
			}
		}
		if err := writeFile(m.path("etc", name), files[name].content, files[name].owned); err != nil {
			return fmt.Errorf("write /etc/%s: %w", name, err)
		}
	}
	if err := m.writeResolver(tree, f); err != nil {
		return fmt.Errorf("write /etc/resolv.conf: %w", err)
	}
	if err := m.writeKeys(f); err != nil {
		return fmt.Errorf("write the machine's SSH keys: %w", err)
	}
	return nil
}

// writeResolver makes resolv.conf where the facts name no server: a link to
// systemd-resolved's where the system has that, or else an empty file, since
// a missing one makes programs ask 127.0.0.1.
func (m *Machine) writeResolver(tree digest.Digest, f *facts.Facts) error {
	path := m.path("etc/resolv.conf")
	if len(f.Nameservers) > 0 || f.Adopted {
		return nil
	}
	_, resolved, err := merkle.Find(m.Store.CAS(), tree, "usr/lib/systemd/systemd-resolved")
	if err != nil {
		return err
	}
	if resolved {
		return linkTo("../run/systemd/resolve/stub-resolv.conf", path)
	}
	return writeFile(path, []byte("# Written by tool: the plan names no name server.\n"), owned{mode: 0o644})
}

// sshDir is where the library's sshd looks for its keys.
const sshDir = "var/lib/ssh"

// writeKeys gives sshd its host key and root the keys that may log in. sshd
// believes keys only in folders that nobody else can write to.
func (m *Machine) writeKeys(f *facts.Facts) error {
	for _, dir := range []string{"var", "var/lib", sshDir, sshDir + "/authorized_keys"} {
		if err := makeDir(m.path(dir), owned{mode: 0o755}); err != nil {
			return err
		}
	}
	if f.HostKey != "" && !f.Adopted {
		if err := writeFile(m.path(sshDir, "ssh_host_ed25519_key"), []byte(f.HostKey), owned{mode: 0o600}); err != nil {
			return err
		}
		if f.HostKeyPublic != "" {
			if err := writeFile(m.path(sshDir, "ssh_host_ed25519_key.pub"), []byte(f.HostKeyPublic+"\n"), owned{mode: 0o644}); err != nil {
				return err
			}
		}
	}
	keys := ""
	if f.Adopted { // whoever could log in still can
		b, err := os.ReadFile(m.path(originDir, "authorized_keys"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if keys = string(b); keys != "" && !strings.HasSuffix(keys, "\n") {
			keys += "\n"
		}
	}
	for _, k := range f.AuthorizedKeys {
		keys += k + "\n"
	}
	return writeFile(m.path(sshDir, "authorized_keys/root"), []byte(keys), owned{mode: 0o600})
}

// networkDir holds networkd's files, made at each start: no closure depends on
// an address.
const networkDir = "run/systemd/network"

// networkFiles returns networkd's file for each interface. A machine with a
// fixed address is online when it has that; its other interfaces are for the
// controller, who waits by itself.
func networkFiles(f *facts.Facts) map[string][]byte {
	fixed := slices.ContainsFunc(f.Interfaces, func(i facts.Interface) bool { return i.Address.IsValid() })
	files := map[string][]byte{}
	for _, i := range f.Interfaces {
		required := "yes"
		if fixed && !i.Address.IsValid() {
			required = "no"
		}
		var b strings.Builder
		fmt.Fprintf(&b, "# Written by tool from the deployment's plan.\n[Match]\nPermanentMACAddress=%s\n\n[Link]\nRequiredForOnline=%s\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n", strings.ToLower(i.MAC), required)
		if i.Address.IsValid() {
			// With the cable out it keeps its address, so that what listens on it goes on.
			fmt.Fprintf(&b, "Address=%s\nConfigureWithoutCarrier=yes\n", i.Address)
		} else {
			b.WriteString("DHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n")
		}
		files["10-"+i.Name+".network"] = []byte(b.String())
	}
	return files
}

// writeNetwork writes networkd's files and tells whether any changed.
func (m *Machine) writeNetwork(f *facts.Facts) (changed bool, err error) {
	if f.Adopted {
		return false, nil
	}
	want := networkFiles(f)
	dir := m.path(networkDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if want[e.Name()] == nil && strings.HasPrefix(e.Name(), "10-") {
			changed = true
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return changed, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		o := owned{mode: 0o644, lazy: true}
		if same(filepath.Join(dir, name), want[name], o) {
			continue
		}
		changed = true
		if err := writeFile(filepath.Join(dir, name), want[name], o); err != nil {
			return changed, fmt.Errorf("write /%s/%s: %w", networkDir, name, err)
		}
	}
	return changed, nil
}

// SetFacts replaces the facts and what is made of them, while the machine runs.
func (m *Machine) SetFacts(ctx context.Context, f *facts.Facts) error {
	changed, err := m.replaceFacts(f)
	if err == nil && changed {
		err = m.Systemd.ReloadNetwork(ctx)
	}
	if err != nil {
		return fmt.Errorf("change the machine's facts: %w", m.explainFull(err))
	}
	return nil
}

func (m *Machine) replaceFacts(f *facts.Facts) (network bool, err error) {
	unlock, err := m.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := m.setFacts(f); err != nil {
		return false, err
	}
	n, err := m.Pointer(Active)
	if err != nil || n == 0 {
		return false, err
	}
	g, err := m.Generation(n)
	if err != nil {
		return false, err
	}
	if err := m.writeFacts(g, f); err != nil {
		return false, err
	}
	return m.writeNetwork(f)
}

// writeFacts writes identity for a generation. It does not tell networkd.
func (m *Machine) writeFacts(g *Generation, f *facts.Facts) error {
	o, err := m.Store.Get(g.Ref)
	if err != nil {
		return err
	}
	manifest, err := m.Manifest(g.Ref)
	if err != nil {
		return err
	}
	return m.writeIdentity(o.Node.Digest, manifest, f)
}
