// Package zktest runs a real ZooKeeper for tests: Debian's with Debian's Java,
// from the package trees that `tool build //packages:zookeeper` makes, or from
// this host.
package zktest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrMissing: there is no ZooKeeper here, or no Java to run it.
var ErrMissing = errors.New("no ZooKeeper to test with")

// ClassPath names an environment variable: a class path with ZooKeeper on it,
// for whoever knows where it is.
const ClassPath = "ZOOKEEPER_CLASSPATH"

// JavaTree names an environment variable: the tree of a Java package, to be used
// in place of this host's.
const JavaTree = "ZOOKEEPER_JAVA_TREE"

// Server is a ZooKeeper.
type Server struct {
	Address string // host:port
	dir     string
	class   string
	java    []string // the command
	cmd     *exec.Cmd
}

// Start runs a ZooKeeper with its data below dir.
func Start(dir string) (*Server, error) {
	java, err := javaCommand()
	if err != nil {
		return nil, err
	}
	class := os.Getenv(ClassPath)
	if class == "" {
		if jars, _ := filepath.Glob("/usr/share/java/zookeeper*.jar"); len(jars) == 0 {
			return nil, fmt.Errorf("%w: %s is not set and /usr/share/java has none", ErrMissing, ClassPath)
		}
		class = "/usr/share/java/*"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Address: l.Addr().String(), dir: dir, class: class, java: java}
	_ = l.Close()
	_, port, _ := strings.Cut(s.Address, ":")
	config := fmt.Sprintf("tickTime=300\ndataDir=%s\nclientPort=%s\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n", filepath.Join(dir, "data"), port)
	if err := os.WriteFile(filepath.Join(dir, "zoo.cfg"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	return s, s.Restart()
}

// javaCommand returns how to run Java. A package's own has its configuration in
// /etc, so it sees the package's there.
func javaCommand() ([]string, error) {
	if tree := os.Getenv(JavaTree); tree != "" {
		found, _ := filepath.Glob(filepath.Join(tree, "usr/lib/jvm/*/bin/java"))
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: %s has no Java", JavaTree, tree)
		}
		return []string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c", `mount --bind "$0" /etc && exec "$@"`, filepath.Join(tree, "etc"), found[0]}, nil
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("%w: there is no java", ErrMissing)
	}
	return []string{java}, nil
}

// Restart runs it again, with the data that it had.
func (s *Server) Restart() error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(slices.Clone(s.java[1:]), "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", s.class, "org.apache.zookeeper.server.ZooKeeperServerMain", filepath.Join(s.dir, "zoo.cfg"))
	s.cmd = exec.Command(s.java[0], args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 300 {
		if c, err := net.DialTimeout("tcp", s.Address, time.Second); err == nil {
			return c.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	_ = s.Stop()
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return fmt.Errorf("ZooKeeper does not listen after 30 s:\n%s", text)
}

// Stop ends it.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // it was killed
	return nil
}
