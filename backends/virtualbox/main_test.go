package virtualbox_test

import (
	"os"
	"testing"

	"tool/backends/virtualbox/vboxtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	vboxtest.Remove()
	os.Exit(code)
}
