//go:build unix

package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// onHangup reloads the configuration on SIGHUP.
func (s *server) onHangup(ctx context.Context) (stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	go func() {
		for range c {
			if err := s.reload(ctx); err != nil {
				s.log.Error("the configuration was not reloaded; the old one stays", "err", err)
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}
