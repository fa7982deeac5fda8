package app

import (
	"fmt"
	"regexp"
	"strings"
)

// segment is what Marathon allows between two slashes.
var segment = regexp.MustCompile(`^(([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])$`)

const maxID = 200 // bytes

// ID makes an id absolute: nginx and /nginx are /nginx.
func ID(s string) string { return "/" + strings.Trim(s, "/") }

// CheckID says what is wrong with an absolute id.
func CheckID(id string) error {
	if id == "/" || id == "" {
		return fmt.Errorf("must not be empty")
	}
	if len(id) > maxID {
		return fmt.Errorf("must not be longer than %d characters", maxID)
	}
	for p := range strings.SplitSeq(strings.TrimPrefix(id, "/"), "/") {
		if !segment.MatchString(p) {
			return fmt.Errorf("must fully match regular expression %q", segment.String())
		}
	}
	switch id[strings.LastIndexByte(id, '/')+1:] {
	case "restart", "tasks", "versions":
		return fmt.Errorf("must not end in restart, tasks or versions, which the API's paths do")
	}
	return nil
}

// TaskPrefix is what ids of the app's tasks start with, before a dot.
func TaskPrefix(id string) string { return strings.ReplaceAll(strings.Trim(id, "/"), "/", "_") }
