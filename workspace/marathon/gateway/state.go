package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"marathon-gateway/app"
)

const (
	// timeFormat is Marathon's, whose versions are times.
	timeFormat  = "2006-01-02T15:04:05.000Z"
	maxVersions = 20 // kept of an app
)

// record is what is kept of an app.
type record struct {
	App         *app.App `json:"app"`
	LastFailure *failure `json:"lastTaskFailure,omitempty"`
}

// failure is the last task of an app that ended by itself.
type failure struct {
	AppID     string `json:"appId"`
	Host      string `json:"host"`
	Message   string `json:"message"`
	SlaveID   string `json:"slaveId"`
	State     string `json:"state"`
	TaskID    string `json:"taskId"`
	Timestamp string `json:"timestamp"`
	Version   string `json:"version"`
}

// state is the leader's copy of what is in ZooKeeper. What it hands out is
// never changed afterwards: changes put new values in its place.
type state struct {
	docs documents
	fail func(error) // a change may or may not have been written: somebody must read again

	mu          sync.Mutex
	apps        map[string]*record
	versions    map[string][]*app.App // of an id, the oldest first
	deployments map[string]*deployment
}

func openState(ctx context.Context, docs documents, fail func(error)) (*state, error) {
	s := &state{docs: docs, fail: fail, apps: map[string]*record{}, versions: map[string][]*app.App{}, deployments: map[string]*deployment{}}
	all, err := docs.load(ctx)
	if err != nil {
		return nil, err
	}
	for p, data := range all {
		dir, rest, _ := strings.Cut(p, "/")
		var err error
		switch dir {
		case appsDir:
			r := &record{}
			if err = json.Unmarshal(data, r); err == nil && (r.App == nil || r.App.VersionInfo == nil || escape(r.App.ID) != rest) {
				err = errors.New("it is no app")
			} else if err == nil {
				s.apps[r.App.ID] = r
			}
		case versionsDir:
			a := &app.App{}
			if err = json.Unmarshal(data, a); err == nil && a.ID == "" {
				err = errors.New("it is no app")
			} else if err == nil {
				s.versions[a.ID] = append(s.versions[a.ID], a)
			}
		case deploymentsDir:
			d := &deployment{}
			if err = json.Unmarshal(data, d); err == nil && (d.ID == "" || d.AppID == "") {
				err = errors.New("it is no deployment")
			} else if err == nil {
				s.deployments[d.ID] = d
			}
		}
		if err != nil {
			return nil, fmt.Errorf("the state in ZooKeeper: %s: %w", p, err)
		}
	}
	for _, vs := range s.versions {
		slices.SortFunc(vs, func(a, b *app.App) int { return strings.Compare(a.Version, b.Version) })
	}
	return s, nil
}

func appDoc(id string) string              { return path.Join(appsDir, escape(id)) }
func versionDoc(id, version string) string { return path.Join(versionsDir, escape(id), version) }
func deploymentDoc(id string) string       { return path.Join(deploymentsDir, id) }

// commit writes changes; when that fails nobody knows what was written, so the
// leader steps down and whoever is next reads it. s.mu is held.
func (s *state) commit(ctx context.Context, changes []change) error {
	if err := s.docs.commit(ctx, changes); err != nil {
		s.fail(err)
		return &apiError{status: 503, Message: "Could not write the state: " + err.Error()}
	}
	return nil
}

// app is the app with that id, or nil.
func (s *state) app(id string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apps[id]
}

// list has all apps, by id.
func (s *state) list() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Collect(maps.Values(s.apps))
	slices.SortFunc(out, func(a, b *record) int { return strings.Compare(a.App.ID, b.App.ID) })
	return out
}

// history has all versions of an app, the newest first.
func (s *state) history(id string) []*app.App {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.versions[id])
	slices.Reverse(out)
	return out
}

// nextVersion is a time later than every version of the app. s.mu is held.
func (s *state) nextVersion(id string, now time.Time) string {
	v := now.UTC().Truncate(time.Millisecond)
	newest := ""
	if r := s.apps[id]; r != nil {
		newest = r.App.Version
	}
	if old, err := time.Parse(timeFormat, newest); err == nil && !v.After(old) {
		v = old.Add(time.Millisecond)
	}
	return v.Format(timeFormat)
}

// setApp is the change that makes a its id's app. s.mu is held.
func (s *state) setApp(a *app.App) ([]change, func(), error) {
	r := &record{App: a}
	if old := s.apps[a.ID]; old != nil {
		r.LastFailure = old.LastFailure
	}
	doc, err := put(appDoc(a.ID), r)
	if err != nil {
		return nil, nil, err
	}
	version, err := put(versionDoc(a.ID, a.Version), a)
	if err != nil {
		return nil, nil, err
	}
	changes := []change{doc, version}
	kept := append(slices.Clone(s.versions[a.ID]), a)
	for len(kept) > maxVersions {
		changes = append(changes, change{path: versionDoc(a.ID, kept[0].Version)})
		kept = kept[1:]
	}
	return changes, func() { s.apps[a.ID], s.versions[a.ID] = r, kept }, nil
}

// unsetApp is the change that removes an app. s.mu is held.
func (s *state) unsetApp(id string) ([]change, func()) {
	changes := []change{{path: appDoc(id)}}
	for _, v := range s.versions[id] {
		changes = append(changes, change{path: versionDoc(id, v.Version)})
	}
	return changes, func() { delete(s.apps, id); delete(s.versions, id) }
}

// failed records a task that ended by itself.
func (s *state) failed(ctx context.Context, f *failure) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.apps[f.AppID]
	if old == nil {
		return nil
	}
	r := &record{App: old.App, LastFailure: f}
	doc, err := put(appDoc(f.AppID), r)
	if err != nil {
		return err
	}
	if err := s.commit(ctx, []change{doc}); err != nil {
		return err
	}
	s.apps[f.AppID] = r
	return nil
}
