// Command fairlead is the whole of Fairlead in one binary: the gateway, the ledger and the tools around them. See
// "fairlead help".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fairleadhq/fairlead/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	env := &cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
	os.Exit(cli.Main(ctx, env, os.Args[1:]))
}
