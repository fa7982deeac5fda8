package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Violation is what is wrong with one field.
type Violation struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// SyntaxError: it is not JSON, or a field is of the wrong type.
type SyntaxError struct{ Details []Violation }

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("Invalid JSON: %s: %s", e.Details[0].Path, e.Details[0].Errors[0])
}

// InvalidError: it is JSON, and no app.
type InvalidError struct{ Details []Violation }

func (e *InvalidError) Error() string {
	return fmt.Sprintf("Object is not valid: %s: %s", e.Details[0].Path, e.Details[0].Errors[0])
}

// What the API tells of an app and ignores when it is sent back.
var readOnly = []string{"tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "taskStats", "deployments", "versionInfo", "lastTaskFailure", "tasksStats", "readinessCheckResults"}

// Fields are an app's fields as they were sent.
type Fields map[string]json.RawMessage

// ParseFields reads a JSON object.
func ParseFields(data []byte) (Fields, error) {
	f := Fields{}
	if err := decode(data, &f); err != nil {
		return nil, err
	}
	for _, name := range readOnly {
		delete(f, name)
	}
	for name, v := range f {
		if string(v) == "null" { // as if it were not there
			delete(f, name)
		}
	}
	return f, nil
}

// New makes an app of its fields, with defaults for what is missing. id, if
// not empty, is what the URL says it is.
func New(f Fields, id string) (*App, error) {
	a := blank()
	data, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	if err := decode(data, a); err != nil {
		return nil, err
	}
	if id != "" {
		if a.ID != "" && ID(a.ID) != id {
			return nil, &InvalidError{[]Violation{{"/id", []string{fmt.Sprintf("is %s, but the request's path says %s", ID(a.ID), id)}}}}
		}
		a.ID = id
	}
	if strings.Trim(a.ID, "/") != "" {
		a.ID = ID(a.ID)
	}
	if err := a.fillChecks(f); err != nil {
		return nil, err
	}
	a.fill()
	a.Version, a.VersionInfo = "", nil
	if v := a.validate(); len(v) > 0 {
		return nil, &InvalidError{v}
	}
	return a, nil
}

// Update is the app with some of its fields replaced, each as a whole.
func (a *App) Update(f Fields) (*App, error) {
	data, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	merged, err := ParseFields(data)
	if err != nil {
		return nil, err
	}
	delete(merged, "version")
	// ports follows from the others, unless it is what is changed.
	delete(merged, "ports")
	if _, ok := f["ports"]; ok {
		delete(merged, "portDefinitions")
	}
	// cmd and args exclude each other.
	if _, ok := f["cmd"]; ok {
		delete(merged, "args")
	} else if _, ok := f["args"]; ok {
		delete(merged, "cmd")
	}
	for name, v := range f {
		merged[name] = v
	}
	return New(merged, a.ID)
}

// fillChecks fills in what health checks leave out, which zero does not tell.
func (a *App) fillChecks(f Fields) error {
	if len(a.HealthChecks) == 0 {
		return nil
	}
	var given []map[string]json.RawMessage
	if err := decode(f["healthChecks"], &given); err != nil {
		return err
	}
	if len(given) != len(a.HealthChecks) { // the field is there twice, in two spellings
		return &SyntaxError{[]Violation{{"/healthChecks", []string{"is ambiguous"}}}}
	}
	for i := range a.HealthChecks {
		h := &a.HealthChecks[i]
		has := func(name string) bool { _, ok := given[i][name]; return ok }
		if !has("protocol") {
			h.Protocol = "HTTP"
			if h.Command != nil {
				h.Protocol = "COMMAND"
			}
		}
		if !has("gracePeriodSeconds") {
			h.GracePeriodSeconds = defaultGrace
		}
		if !has("intervalSeconds") {
			h.IntervalSeconds = defaultInterval
		}
		if !has("timeoutSeconds") {
			h.TimeoutSeconds = defaultTimeout
		}
		if !has("maxConsecutiveFailures") {
			h.MaxConsecutiveFailures = defaultMaxFailures
		}
	}
	return nil
}

// decode reads exactly one JSON value; errors are SyntaxErrors.
func decode(data []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	err := d.Decode(out)
	if err == nil {
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return &SyntaxError{[]Violation{{"/", []string{"there is something after the JSON value"}}}}
		}
		return nil
	}
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		path := "/" + strings.ReplaceAll(te.Field, ".", "/")
		return &SyntaxError{[]Violation{{path, []string{fmt.Sprintf("error.expected.%s", kind(te.Type))}}}}
	}
	return &SyntaxError{[]Violation{{"/", []string{err.Error()}}}}
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "jsstring"
	case reflect.Bool:
		return "jsboolean"
	case reflect.Slice, reflect.Array:
		return "jsarray"
	case reflect.Map, reflect.Struct:
		return "jsobject"
	case reflect.Pointer:
		return kind(t.Elem())
	}
	return "jsnumber"
}
