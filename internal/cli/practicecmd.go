package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/fairleadhq/fairlead/internal/practice"
)

// startPractice serves the practice model on a loopback port of its own and adds it to the providers: calls reach it
// through the same HTTP path as any other.
func (s *server) startPractice(ctx context.Context) (stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serving the practice model: %w", err)
	}
	srv := &http.Server{Handler: practice.New(practice.Config{}), ReadHeaderTimeout: 10 * time.Second}
	go srv.Serve(ln)
	base := "http://" + ln.Addr().String()
	s.extra = map[string]Provider{}
	for name, dialect := range map[string]string{"practice": "openai", "practice-anthropic": "anthropic"} {
		s.extra[name] = Provider{Dialect: dialect, BaseURL: base, Durability: "strict", OnFailure: "closed", Timeout: Duration(time.Minute)}
	}
	return func() { srv.Close() }, nil
}
