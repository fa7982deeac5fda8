package main

import (
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"tool/core/model/event"
)

// view shows events: a few live lines at the bottom of a terminal, or plain
// lines now and then elsewhere. Nothing that matters scrolls away: warnings
// and failures are printed above the live lines and stay.
type view struct {
	out     io.Writer
	palette palette
	live    bool // redraw lines in place
	quiet   bool // no progress at all
	width   int

	mu      sync.Mutex
	start   time.Time
	phase   string
	counts  event.Counts
	running map[int]*runningAction
	doing   map[string]*runningAction // by machine
	drawn   int                       // live lines on the screen
	last    time.Time                 // when a plain view last told how far it is
	pause   time.Duration             // until it tells again
	stop    chan struct{}
	stopped sync.WaitGroup
}

type runningAction struct {
	text        string
	at          time.Time
	done, total int64
}

// plainEvery and plainSlow are how often a plain view tells how far it is, at
// first and while nothing new happens for long.
const (
	plainEvery = 5 * time.Second
	plainSlow  = time.Minute
)

func newView(out io.Writer, mode string) *view {
	v := &view{out: out, palette: newPalette(out), start: time.Now(), last: time.Now(), pause: plainEvery, running: map[int]*runningAction{}, doing: map[string]*runningAction{}, stop: make(chan struct{}), width: 80}
	switch mode {
	case "", "auto":
		v.live = isTerminal(out) && os.Getenv("TERM") != "dumb"
	case "terminal":
		v.live = true
	case "plain":
	case "none":
		v.quiet = true
	}
	if f, ok := out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			v.width = w
		}
	}
	if !v.quiet {
		v.stopped.Add(1)
		go v.tick()
	}
	return v
}

func (v *view) tick() {
	defer v.stopped.Done()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-v.stop:
			return
		case now := <-t.C:
			v.mu.Lock()
			if v.live {
				v.draw(now)
			} else if now.Sub(v.last) >= v.pause && len(v.running)+len(v.doing) > 0 {
				v.last, v.pause = now, min(2*v.pause, plainSlow)
				fmt.Fprintln(v.out, v.status(now))
			}
			v.mu.Unlock()
		}
	}
}

// Close removes the live lines and ends the view.
func (v *view) Close() {
	v.mu.Lock()
	was := v.quiet
	v.quiet = true
	v.mu.Unlock()
	if was {
		return
	}
	close(v.stop)
	v.stopped.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
}

// Send implements event.Sink.
func (v *view) Send(e event.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := e.(type) {
	case event.Printed:
		v.above(fmt.Sprintf("%s %s: %s", v.palette.dim("DEBUG:"), e.Position, e.Text))
	case event.Warning:
		pos := e.Position
		if pos != "" {
			pos += ": "
		}
		v.above(fmt.Sprintf("%s %s%s", v.palette.bold("warning:"), pos, e.Text))
	case event.PhaseStarted:
		v.phase = e.Name
	case event.ActionStarted:
		v.counts = e.Counts
		text := e.Progress
		if text == "" {
			text = e.Mnemonic + " " + e.Owner
		}
		v.running[e.ID] = &runningAction{text: text, at: e.At}
	case event.ActionPostponed:
		v.counts = e.Counts
		delete(v.running, e.ID)
	case event.ActionProgress:
		if r := v.running[e.ID]; r != nil {
			r.done, r.total = e.Done, e.Total
		}
	case event.MachineSaid:
		v.above(fmt.Sprintf("%s: %s", e.Machine, e.Text))
	case event.MachineDoing:
		v.machine(e)
	case event.ActionFinished:
		v.counts, v.pause = e.Counts, plainEvery
		delete(v.running, e.ID)
		if e.Err == nil && !e.Cached && len(e.Stderr) > 0 {
			v.above(fmt.Sprintf("%s %s (%s) wrote:\n%s", v.palette.dim("note:"), e.Owner, e.Mnemonic, strings.TrimRight(string(e.Stderr), "\n")))
		}
	}
}

// machine keeps what is being done with a machine. Without a terminal every
// new thing is a line: a deploy has few, and somebody waits for them.
func (v *view) machine(e event.MachineDoing) {
	if e.Text == "" {
		delete(v.doing, e.Machine)
		return
	}
	text := e.Machine + ": " + e.Text
	r := v.doing[e.Machine]
	if r == nil || r.text != text {
		r = &runningAction{text: text, at: e.At}
		v.doing[e.Machine] = r
		if !v.live && !v.quiet {
			v.last, v.pause = e.At, plainEvery
			fmt.Fprintln(v.out, text)
		}
	}
	r.done, r.total = e.Done, e.Total
}

// Above prints something of several lines that stays, above the live lines.
func (v *view) Above(print func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	print()
}

// above prints a line that stays, above the live lines.
func (v *view) above(s string) {
	v.erase()
	fmt.Fprintln(v.out, s)
}

func (v *view) erase() {
	if v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", v.drawn)
		v.drawn = 0
	}
}

func (v *view) status(now time.Time) string {
	c := v.counts
	s := fmt.Sprintf("[%d/%d] %s", c.Done+c.Cached, c.Total, duration(now.Sub(v.start)))
	if len(v.doing) > 0 {
		s = fmt.Sprintf("%s at work, %s", count(len(v.doing), "machine"), duration(now.Sub(v.start)))
	} else if c.Total == 0 {
		s = fmt.Sprintf("%s %s", v.phase, duration(now.Sub(v.start)))
	}
	if rs := v.sorted(); len(rs) > 0 && !v.live {
		s += " " + rs[0].text
		if n := len(rs) - 1; n > 0 {
			s += fmt.Sprintf(" and %d more", n)
		}
	}
	return s
}

func (v *view) sorted() []*runningAction {
	rs := make([]*runningAction, 0, len(v.running)+len(v.doing))
	for _, r := range v.running {
		rs = append(rs, r)
	}
	for _, r := range v.doing {
		rs = append(rs, r)
	}
	sort.Slice(rs, func(i, j int) bool { return rs[i].at.Before(rs[j].at) })
	return rs
}

const maxLiveLines = 6

func (v *view) draw(now time.Time) {
	lines := []string{v.palette.green(v.status(now))}
	rs := v.sorted()
	for i, r := range rs {
		if i == maxLiveLines {
			lines = append(lines, fmt.Sprintf("    … %d more", len(rs)-i))
			break
		}
		s := fmt.Sprintf("    %s %s", r.text, duration(now.Sub(r.at)))
		if r.total > 0 {
			s += fmt.Sprintf(" %s/%s", bytesize(r.done), bytesize(r.total))
		}
		lines = append(lines, clip(s, v.width-1))
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	for _, l := range lines {
		b.WriteString("\x1b[2K" + l + "\n")
	}
	b.WriteString("\x1b[J")
	v.drawn = len(lines)
	io.WriteString(v.out, b.String())
}

func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// duration prints 0.3s, 12.1s, 3m04s.
func duration(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}

// bytesize prints 812 B, 1.2 KB, 33.0 MB (powers of 1000).
func bytesize(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1000 && unit < 4 {
		f /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %cB", f, " KMGT"[unit])
}
