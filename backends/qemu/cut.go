package qemu

import (
	"context"

	"tool/core/machines/deploy"
)

// Cut implements deploy.Cutter: the machine's process ends at once, as if its
// power were cut. It is seen as crashed until it is started again.
func (b *Backend) Cut(ctx context.Context, m *deploy.Machine) error {
	p, err := findProcess(m.Dir, uuidOf(m))
	if err != nil || p == nil {
		return err
	}
	defer p.close()
	return p.end(ctx)
}
