package activate

import (
	"strings"
	"testing"
)

// TestNetworkFiles: networkd reads its files with the switch that changes them,
// and with the way back.
func TestNetworkFiles(t *testing.T) {
	r := newRig(t)
	network := func(address string) map[string]string {
		return map[string]string{"systemd/network/20-lan.network": address}
	}
	r.first(r.system(map[string]string{"a.service": "1"}, network("right"), nil))
	r.sd.unit(networkd).active = "active"
	reloads := func() (n int) {
		for _, c := range r.sd.calls {
			if c == "network" {
				n++
			}
		}
		return n
	}
	before := reloads()
	r.stage(2, r.system(map[string]string{"a.service": "2"}, network("right"), nil))
	r.do(SwitchRequest{Generation: 2, Auto: true})
	if n := reloads() - before; n != 0 {
		t.Errorf("%d reloads for the same files", n)
	}
	r.stage(3, r.system(map[string]string{"a.service": "fail"}, network("wrong"), nil))
	if s := r.do(SwitchRequest{Generation: 3, Auto: true}); s.Result != ResultReverted {
		t.Fatal(s)
	}
	if n := reloads() - before; n != 2 {
		t.Errorf("%d reloads for there and back", n)
	}
}

// TestNoNetworkLater: a system that would leave an adopted machine without a
// network at its next start is not switched to.
func TestNoNetworkLater(t *testing.T) {
	r := host(t)
	if err := r.m.Adopt(t.Context(), r.agent(t)); err != nil {
		t.Fatal(err)
	}
	f := someFacts()
	f.Adopted = true
	if err := r.m.Stage(t.Context(), 1, r.system(map[string]string{"a.service": "a"}, nil, nil), "//c:m", f); err != nil {
		t.Fatal(err)
	}
	r.sd.unit("networking.service").active = "active"
	if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 1}); err == nil || !strings.Contains(err.Error(), "made by networking.service, which the system does not have") {
		t.Errorf("error %v", err)
	}
	r.sd.unit("networking.service").active = "inactive"
	if s := r.do(SwitchRequest{Generation: 1, Auto: true}); s.Result != ResultConfirmed {
		t.Error(s)
	}
}
