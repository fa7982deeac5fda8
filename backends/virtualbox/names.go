package virtualbox

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"

	"tool/core/machines/deploy"
)

// Names in a machine's folder.
const (
	rootFile    = "root.vdi"
	espFile     = "esp.vdi"
	seedFile    = "seed.vdi"
	grownFile   = "grown.vdi" // that takes root.vdi's place
	runningFile = "running"
	consoleFile = "console.log"
	lockFile    = "lock"
	leavingFile = "leaving" // all else is destroyed, and what it shared with others is to be left
	// makingSuffix marks a disk that is not finished.
	makingSuffix = ".making"
)

// Names in the network's folder.
const (
	baseLock     = "base.lock"
	hostonlyFile = "hostonly.json"
	memberSuffix = ".hostonly" // of a machine in the network with the host
)

// uefi is the only firmware that machines have here.
const uefi = deploy.FirmwareUEFI

// uuidOf returns a UUID that follows from what it is of.
func uuidOf(parts ...string) string {
	h := sha256.Sum256([]byte("tool virtualbox\x00" + strings.Join(parts, "\x00")))
	h[6] = h[6]&0x0f | 0x80 // version 8: our own
	h[8] = h[8]&0x3f | 0x80
	x := hex.EncodeToString(h[:16])
	return strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-")
}

// idOf returns a machine's identity: names are not unique in VirtualBox.
func idOf(m *deploy.Machine) string { return uuidOf("machine", m.Deployment, m.Name) }

// diskID returns the UUID of one of a machine's disks that are made from an
// image of their own.
func diskID(m *deploy.Machine, file string) string {
	return uuidOf("disk", m.Deployment, m.Name, file)
}

// nameOf is what VirtualBox's own window shows.
func nameOf(m *deploy.Machine) string {
	d := strings.NewReplacer("/", "-", "\\", "-").Replace(m.Deployment)
	return m.Name + "-" + d[:min(len(d), 8)]
}

// folderOf is VirtualBox's folder of the machine.
func folderOf(m *deploy.Machine) string { return filepath.Join(m.Dir, nameOf(m)) }

// layersOf returns the disks that VirtualBox made for the machine's snapshots.
func layersOf(m *deploy.Machine) ([]string, error) {
	return files(filepath.Join(folderOf(m), "Snapshots"), "", ".vdi")
}

// variablesOf is VirtualBox's file of the firmware's variables.
func variablesOf(m *deploy.Machine) string {
	return filepath.Join(folderOf(m), nameOf(m)+".nvram")
}

// settingsOf is VirtualBox's file of the machine's settings.
func settingsOf(m *deploy.Machine) string {
	return filepath.Join(folderOf(m), nameOf(m)+".vbox")
}

// logOf is what VirtualBox's process writes of the machine's last start.
func logOf(m *deploy.Machine) string { return filepath.Join(folderOf(m), "Logs", "VBox.log") }
