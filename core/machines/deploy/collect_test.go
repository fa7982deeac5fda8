package deploy

import (
	"fmt"
	"strings"
	"testing"
)

// TestCollect has machines remove old generations. It takes real time, for
// collections compare with the times of files.
func TestCollect(t *testing.T) {
	f := newFleet(t, memoryDir(t))
	defer f.close()
	var last *Object
	for n := range 4 {
		// What is large belongs to one generation only.
		last = f.plain(1, fmt.Sprint(n, strings.Repeat(" x", 1000)))
		f.deploy(last)
	}
	f.open()
	gone, err := f.session.Prune(2)
	f.must(err)
	if fmt.Sprint(gone) != "[1 2]" {
		t.Errorf("dropped here: %v", gone)
	}
	got, errs := f.session.Collect(t.Context(), []string{"m0"}, 2)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if c := got["m0"]; c == nil || fmt.Sprint(c.Generations) != "[2]" || c.Freed.Objects < 2 || c.Freed.Bytes < 2000 {
		t.Errorf("%+v", c)
	}
	f.settled(last, 4)
	a, err := f.backend.machine("m0").open()
	f.must(err)
	defer a.Close()
	all, err := a.Generations()
	f.must(err)
	// It was started with the first, and has not been since.
	if len(all) != 3 || all[0].Number != 1 || all[1].Number != 3 {
		t.Errorf("the machine has %+v", all)
	}
	// And back to what both have kept, without sending anything.
	before := f.d.generation(3)
	o, err := LoadObject(f.store, before.Object)
	f.must(err)
	if r := f.deploy(o, func(o *Options) { o.Generation = 3 }); r.Sent != 0 {
		t.Errorf("%d bytes were sent", r.Sent)
	}
	f.settledAt(o, 3)
}
