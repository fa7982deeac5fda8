package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runHelper is what /bin/helper does in the sandboxes: this test binary, with
// a mode as its first argument.
func runHelper(mode string, args []string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
	}
	switch mode {
	case "facts":
		host, _ := os.Hostname()
		wd, _ := os.Getwd()
		umask := syscall.Umask(0)
		ifs, err := net.Interfaces()
		fail(err)
		var names []string
		for _, i := range ifs {
			names = append(names, i.Name+"/"+i.Flags.String())
		}
		_, dial := net.DialTimeout("udp", "192.0.2.1:53", time.Second)
		caps, _ := os.ReadFile("/proc/self/status")
		var status []string
		for line := range strings.SplitSeq(string(caps), "\n") {
			if k, v, _ := strings.Cut(line, ":"); k == "CapEff" || k == "CapPrm" || k == "CapAmb" || k == "NoNewPrivs" {
				status = append(status, k+"="+strings.TrimSpace(v))
			}
		}
		pgid, _ := syscall.Getpgid(0)
		stdin, _ := os.Readlink("/proc/self/fd/0")
		_, worker := os.Stat("/proc/1")
		var core syscall.Rlimit
		_ = syscall.Getrlimit(unix.RLIMIT_CORE, &core)
		fail(json.NewEncoder(os.Stdout).Encode(map[string]any{
			"env": os.Environ(), "uid": os.Getuid(), "gid": os.Getgid(), "host": host, "cwd": wd, "umask": umask,
			"net": names, "dial": dial != nil, "pid": os.Getpid(), "leader": pgid == os.Getpid(), "status": status,
			"root": slices.DeleteFunc(list("/"), func(n string) bool { return n == "lib" || n == "lib64" }), "dev": list("/dev"), "stdin": stdin, "worker hidden": os.IsNotExist(worker),
			"core": core, "tmp": list("/tmp"), "store": list("/tool/store"), "args": os.Args[2:],
		}))
	case "list":
		for _, d := range args {
			fmt.Println(d, list(d))
		}
	case "cat":
		for _, p := range args {
			b, err := os.ReadFile(p)
			fail(err)
			os.Stdout.Write(b)
		}
	case "write": // path content …
		for i := 0; i+1 < len(args); i += 2 {
			fail(os.MkdirAll(filepath.Dir(args[i]), 0o755))
			fail(os.WriteFile(args[i], []byte(args[i+1]), 0o644))
		}
	case "exe":
		fail(os.WriteFile(args[0], []byte("x"), 0o755))
	case "symlink":
		fail(os.RemoveAll(args[1]))
		fail(os.Symlink(args[0], args[1]))
	case "fifo":
		fail(unix.Mkfifo(args[0], 0o644))
	case "attack": // try everything to change the file args[0]
		attack(args[0])
	case "attack2": // root in a nested user namespace
		for _, at := range []string{"/build", "/bin", "/"} {
			if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err == nil {
				fmt.Println("succeeded: nested remount of", at)
			}
			if err := unix.Unmount(at, unix.MNT_DETACH); err == nil && at != "/" {
				fmt.Println("succeeded: nested unmount of", at)
			}
		}
		if err := os.WriteFile(args[0], []byte("x"), 0o644); err == nil {
			fmt.Println("succeeded: nested write")
		}
	case "spew":
		for range 3 * 1024 { // 12 MiB
			fmt.Println(strings.Repeat("x", 4095))
		}
		fmt.Println("the end")
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "daemon": // double fork: a child in its own session that starts another
		cmd := osexec.Command("/proc/self/exe", "helper", "daemon2")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Stdout = os.Stdout // keeps the pipe open
		fail(cmd.Run())
	case "daemon2":
		cmd := osexec.Command("/proc/self/exe", "helper", "sleep")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Stdout = os.Stdout
		fail(cmd.Start())
		fmt.Println("daemon", cmd.Process.Pid)
	case "bomb":
		for range 60 {
			cmd := osexec.Command("/proc/self/exe", "helper", "sleep")
			fail(cmd.Start())
		}
		fmt.Println("lit")
	case "killall":
		fmt.Println(syscall.Kill(1, syscall.SIGTERM), syscall.Kill(1, syscall.SIGKILL), syscall.Kill(1, syscall.SIGSEGV))
	case "signal":
		fail(syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	case "exit":
		var n int
		fmt.Sscan(args[0], &n)
		os.Exit(n)
	default:
		fail(fmt.Errorf("helper: no mode %q", mode))
	}
	os.Exit(0)
}

func list(dir string) []string {
	es, _ := os.ReadDir(dir)
	names := []string{}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// attack prints a line for each attempt that succeeded.
func attack(p string) {
	before, err := os.ReadFile(p)
	if err != nil {
		fmt.Println("unreadable", err)
		return
	}
	try := func(what string, err error) {
		if err == nil {
			fmt.Println("succeeded:", what)
		}
	}
	write := func(p string) error {
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
	try("write", write(p))
	try("chmod", os.Chmod(p, 0o777))
	try("write after chmod", write(p))
	try("utimes", os.Chtimes(p, time.Now(), time.Now()))
	try("truncate", os.Truncate(p, 0))
	try("xattr", unix.Setxattr(p, "user.x", []byte("y"), 0))
	_ = os.WriteFile("/tmp/evil", []byte("evil"), 0o644)
	try("rename over", os.Rename("/tmp/evil", p))
	try("hard link out", os.Link(p, "/tmp/linked"))
	try("remove", os.Remove(p))
	try("rename away", os.Rename(p, p+".old"))
	try("create beside", os.WriteFile(p+".new", nil, 0o644))
	if f, err := os.Open(p); err == nil {
		self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		try("write through /proc/self/fd", write(self))
		try("fchmod", f.Chmod(0o777))
		try("chmod through /proc/self/fd", os.Chmod(self, 0o777))
		try("link of fd", unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, "/tmp/linked2", unix.AT_SYMLINK_FOLLOW))
		_, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		try("shared mapping", err)
	}
	_ = os.Symlink(p, "/tmp/symlink")
	try("write through symlink", write("/tmp/symlink"))
	try("remount", unix.Mount("", "/build", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	try("unmount", unix.Unmount("/build", unix.MNT_DETACH))
	for _, where := range []string{"/x", "/bin/x", "/build/x", "/dev/x", "/proc/sys/kernel/hostname", "/tool/x", "/tool/store/x", "/etc/x", "/dev/null/x", "/proc/sys/kernel/ns_last_pid"} {
		f, err := os.OpenFile(where, os.O_WRONLY|os.O_CREATE, 0o644)
		if err == nil {
			_, err = f.WriteString("1")
		}
		try("write "+where, err)
	}
	// In a user namespace of its own the command may mount, but what is
	// read-only stays so.
	cmd := osexec.Command("/proc/self/exe", "helper", "attack2", p)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
	}
	out, _ := cmd.CombinedOutput()
	os.Stdout.Write(out)
	after, err := os.ReadFile(p)
	if err != nil || !bytes.Equal(before, after) {
		fmt.Println("changed:", err)
	}
	fmt.Println("attacked")
}
