package virtualbox

import (
	"strconv"
	"strings"
)

// pair is one line of --machinereadable: key="value" or key=value.
type pair struct{ key, value string }

// parsePairs reads what --machinereadable writes. Keys may be quoted; values
// that are may hold line breaks and escaped quotes. Lines that are neither, such
// as " rec_screen0", are passed over.
func parsePairs(text string) []pair {
	var out []pair
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		key, value, ok := cutKey(line)
		if !ok {
			text = rest
			continue
		}
		if !strings.HasPrefix(value, `"`) {
			out = append(out, pair{key, strings.TrimSpace(value)})
			text = rest
			continue
		}
		// From the quote on, to the end of the text: the value may go over lines.
		from := text[len(line)-len(value)+1:]
		end := quoteEnd(from)
		if end < 0 {
			out = append(out, pair{key, unescape(strings.TrimRight(value[1:], "\r"))})
			text = rest
			continue
		}
		out = append(out, pair{key, unescape(from[:end])})
		_, text, _ = strings.Cut(from[end:], "\n")
	}
	return out
}

// cutKey splits a line at the = after its key.
func cutKey(line string) (key, value string, ok bool) {
	if rest, quoted := strings.CutPrefix(line, `"`); quoted {
		key, value, ok = strings.Cut(rest, `"=`)
		return key, value, ok
	}
	key, value, ok = strings.Cut(line, "=")
	return key, value, ok && key != "" && !strings.ContainsAny(key, " \t")
}

// quoteEnd returns where the value that begins s ends: at the first quote that
// is not escaped and has nothing after it on its line. Backslashes of paths are
// not escaped by VBoxManage, but nothing of that kind occurs on Linux.
func quoteEnd(s string) int {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		case s[i] == '"' && (i+1 == len(s) || s[i+1] == '\n' || s[i+1] == '\r'):
			return i
		}
	}
	return -1
}

var unescape = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace

// info is what is known of a virtual machine, by the keys of showvminfo.
type info map[string]string

func parseInfo(text string) info {
	out := info{}
	for _, p := range parsePairs(text) {
		if _, there := out[p.key]; !there {
			out[p.key] = p.value
		}
	}
	return out
}

func (i info) number(key string) int {
	n, err := strconv.Atoi(i[key])
	if err != nil {
		return 0
	}
	return n
}

// maxRules bounds how many forwarded ports are read.
const maxRules = 4096

// rules returns the forwarded ports of the first interface.
func (i info) rules() []rule {
	var out []rule
	for n := range maxRules {
		v, ok := i["Forwarding("+strconv.Itoa(n)+")"]
		if !ok {
			break
		}
		if r, ok := parseRule(v); ok {
			out = append(out, r)
		}
	}
	return out
}

// rule is a forwarded port as VBoxManage has it: name,tcp,127.0.0.1,2222,,22.
type rule struct {
	name, proto, addr string
	port, guest       int
}

func parseRule(s string) (rule, bool) {
	f := strings.Split(s, ",")
	if len(f) != 6 {
		return rule{}, false
	}
	port, err1 := strconv.Atoi(f[3])
	guest, err2 := strconv.Atoi(f[5])
	return rule{f[0], f[1], f[2], port, guest}, err1 == nil && err2 == nil
}

func (r rule) String() string {
	return strings.Join([]string{r.name, r.proto, r.addr, strconv.Itoa(r.port), "", strconv.Itoa(r.guest)}, ",")
}

// listed is a line of list vms: "name" {uuid}.
type listed struct{ name, id string }

// inaccessible is the name of machines whose settings cannot be read.
const inaccessible = "<inaccessible>"

func parseList(text string) []listed {
	var out []listed
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndex(line, `" {`)
		if at < 1 || line[0] != '"' || !strings.HasSuffix(line, "}") {
			continue
		}
		out = append(out, listed{line[1:at], line[at+3 : len(line)-1]})
	}
	return out
}

// parseBlocks reads blocks of "Key: value" lines with empty ones between, as
// most lists are. A line without a key goes on with the value before.
func parseBlocks(text string) []map[string]string {
	var out []map[string]string
	var block map[string]string
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			block = nil
			continue
		}
		if block == nil {
			block = map[string]string{}
			last = ""
			out = append(out, block)
		}
		key, value, ok := strings.Cut(line, ":")
		if ok && isKey(key) {
			last = key
			if _, there := block[key]; !there {
				block[key] = strings.TrimSpace(value)
			}
		} else if last != "" {
			block[last] += "\n" + strings.TrimSpace(line)
		}
	}
	return out
}

// isKey tells keys from the middle of a text with a colon: "UUID", "In use by VMs".
func isKey(s string) bool {
	if s == "" || len(s) > 40 || s[0] < 'A' || s[0] > 'Z' {
		return false
	}
	return s != "VD" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(" -/", r)
	}) < 0
}

// medium is a disk that VirtualBox knows.
type medium struct {
	id, parent string // parent is "base" for one that has none
	state      string // created, locked write, inaccessible, …
	location   string
	capacity   int // MiB
	problem    string
}

func mediumOf(b map[string]string) medium {
	m := medium{id: b["UUID"], parent: b["Parent UUID"], state: b["State"], location: b["Location"], problem: b["Access Error"]}
	number, unit, _ := strings.Cut(b["Capacity"], " ")
	if n, err := strconv.Atoi(number); err == nil && n >= 0 && unit == "MBytes" {
		m.capacity = n
	}
	return m
}

func parseMedia(text string) []medium {
	var out []medium
	for _, b := range parseBlocks(text) {
		if m := mediumOf(b); m.id != "" {
			out = append(out, m)
		}
	}
	return out
}

// snapshotEntry is one of a machine's snapshots.
type snapshotEntry struct {
	name, id, description string
	current               bool // the machine is what it was then, and what was changed since
}

// parseSnapshots reads snapshot list --machinereadable, oldest first: the order
// of a tree is that of its making where nobody branched it.
func parseSnapshots(text string) []snapshotEntry {
	var out []snapshotEntry
	current := ""
	for _, p := range parsePairs(text) {
		switch {
		case p.key == "CurrentSnapshotUUID":
			current = p.value
		case p.key == "SnapshotName" || strings.HasPrefix(p.key, "SnapshotName-"):
			out = append(out, snapshotEntry{name: p.value})
		case len(out) == 0:
		case p.key == "SnapshotUUID" || strings.HasPrefix(p.key, "SnapshotUUID-"):
			out[len(out)-1].id = p.value
		case p.key == "SnapshotDescription" || strings.HasPrefix(p.key, "SnapshotDescription-"):
			out[len(out)-1].description = p.value
		}
	}
	for i := range out {
		out[i].current = current != "" && out[i].id == current
	}
	return out
}

// parseInterfaces reads list hostonlyifs.
func parseInterfaces(text string) []hostInterface {
	var out []hostInterface
	for _, b := range parseBlocks(text) {
		if b["Name"] != "" {
			out = append(out, hostInterface{name: b["Name"], address: b["IPAddress"], mask: b["NetworkMask"]})
		}
	}
	return out
}

// hostInterface is an interface of the host that machines are reached by.
type hostInterface struct{ name, address, mask string }

// parseCreated reads what hostonlyif create says: Interface 'vboxnet0' was successfully created.
func parseCreated(text string) string {
	_, after, ok := strings.Cut(text, "Interface '")
	if !ok {
		return ""
	}
	name, rest, ok := strings.Cut(after, "'")
	if !ok || !strings.Contains(rest, "created") || strings.ContainsAny(name, " \n/") {
		return ""
	}
	return name
}
