package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// console is where a person or a test reads how far the machine came.
type console struct {
	file    *os.File
	cmdline string
}

// openConsole begins with what the kernel opened for its first process, and
// mounts proc for the command line.
func openConsole(proc string) *console {
	c := &console{file: os.Stderr}
	if err := (mount{"proc", proc, "proc", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""}).do(); err != nil {
		c.printf("%v", err)
		return c
	}
	b, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		c.printf("%v", err)
	}
	c.cmdline = string(b)
	return c
}

// reopen takes the console device once devtmpfs has one: an initrd without the
// device node gave this process nothing to write to.
func (c *console) reopen() {
	f, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		c.printf("%v", err)
		return
	}
	c.file = f
}

// printf writes a line as the kernel does, with the time since it started.
func (c *console) printf(format string, args ...any) {
	t := uptime()
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\r\n")
	_, _ = fmt.Fprintf(c.file, "[%5d.%06d] tool: %s\r\n", t/time.Second, t%time.Second/time.Microsecond, line)
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	const clockBoottime = 7
	var t syscall.Timespec
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}

// panicSeconds is how long the kernel, too, would wait before it reboots.
func panicSeconds(cmdline string) int {
	seconds := 10
	for word := range strings.FieldsSeq(cmdline) {
		text, ok := strings.CutPrefix(word, "panic=")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n == 0: // 0 would be forever
			seconds = 10
		case n < 0: // the kernel's word for at once
			seconds = 0
		default:
			seconds = min(n, 3600)
		}
	}
	return seconds
}
