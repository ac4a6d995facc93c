// Command practiced serves the practice model on a port of its own, so that a configuration can name it as a provider:
// the interop suites let official SDKs call it through a gateway, in observe mode and in enforce mode.
//
//	practiced [-listen ADDR] [-chunk RUNES]
//
// It prints the base URL on standard output once it listens, and serves until it is killed. It has no authentication
// and belongs on loopback; what it withstands and its bounds are those of package practice.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/fairleadhq/fairlead/internal/practice"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "serve at `ADDR`; port 0 takes a free one")
	chunk := flag.Int("chunk", 0, "cut streamed text into pieces of `RUNES`")
	flag.Parse()
	if err := serve(*listen, *chunk); err != nil {
		fmt.Fprintln(os.Stderr, "practiced:", err)
		os.Exit(1)
	}
}

func serve(addr string, chunk int) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if _, err := fmt.Printf("http://%s\n", ln.Addr()); err != nil {
		return err
	}
	srv := &http.Server{Handler: practice.New(practice.Config{Chunk: chunk}), ReadHeaderTimeout: 10 * time.Second}
	return srv.Serve(ln)
}
