package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maxMessage bounds a line of QMP.
const maxMessage = 1 << 20

// monitor is a connection to a machine's control socket. QEMU serves one at a
// time, so it is kept only as long as needed.
type monitor struct {
	conn net.Conn
	in   *bufio.Reader
}

// message is a line of QMP: a greeting, an answer, or an event.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

// openMonitor connects to the socket in a machine's folder. The folder's own
// path may be longer than a socket's path can be, so the way to it is a
// descriptor of the folder.
func openMonitor(ctx context.Context, dir string, wait time.Duration) (*monitor, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	conn, err := (&net.Dialer{Timeout: wait}).DialContext(ctx, "unix", filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), qmpFile))
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn, in: bufio.NewReader(conn)}
	end := time.Now().Add(wait)
	if t, ok := ctx.Deadline(); ok && t.Before(end) {
		end = t
	}
	if err = conn.SetDeadline(end); err == nil {
		err = m.greet()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) close() { _ = m.conn.Close() }

func (m *monitor) greet() error {
	g, err := m.read()
	if err != nil {
		return err
	}
	if g.QMP == nil {
		return errors.New("what answers at the control socket does not speak QMP")
	}
	return m.execute("qmp_capabilities", nil, nil)
}

// execute runs a command and reads its result into v, if v is not nil.
func (m *monitor) execute(command string, arguments, v any) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	if _, err := m.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for {
		a, err := m.read()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case a.Error != nil:
			return fmt.Errorf("%s: %.500s", command, a.Error.Desc)
		case a.Return == nil:
			continue // an event
		case v == nil:
			return nil
		}
		if err := json.Unmarshal(a.Return, v); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		return nil
	}
}

func (m *monitor) read() (*message, error) {
	return readMessage(m.in)
}

// readMessage reads one line.
func readMessage(r *bufio.Reader) (*message, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxMessage {
			return nil, fmt.Errorf("a message of QMP is longer than %d bytes", maxMessage)
		}
		if err == nil {
			break
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	var msg message
	if err := json.Unmarshal(line, &msg); err != nil {
		return nil, fmt.Errorf("QMP: %w", err)
	}
	return &msg, nil
}

// status is the answer of query-status: what the machine does, and whether it
// is the one that this folder is of.
func (m *monitor) status(uuid string) (string, error) {
	var id struct {
		UUID string `json:"UUID"`
	}
	if err := m.execute("query-uuid", nil, &id); err != nil {
		return "", err
	}
	if id.UUID != uuid {
		return "", fmt.Errorf("the control socket is that of the machine %.64s, not of %s", id.UUID, uuid)
	}
	var s struct {
		Status string `json:"status"`
	}
	err := m.execute("query-status", nil, &s)
	return s.Status, err
}

// human runs a command of QEMU's monitor for people, for what QMP lacks, and
// returns what it printed.
func (m *monitor) human(line string) (string, error) {
	var out string
	err := m.execute("human-monitor-command", map[string]string{"command-line": line}, &out)
	return strings.TrimSpace(out), err
}
