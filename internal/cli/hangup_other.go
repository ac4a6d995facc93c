//go:build !unix

package cli

import "context"

// onHangup does nothing where there is no SIGHUP: fairlead config reload does the same.
func (s *server) onHangup(context.Context) (stop func()) { return func() {} }
