package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/rig"
)

// turnHeader tells the mock upstream which recorded turn a request is. Two conversations may begin alike.
const turnHeader = "X-Bench-Turn"

// An upstream answers each request with its recorded answer, and only if the request arrived as it was sent.
type upstream struct {
	turns [][]turn
	wrong atomic.Int64 // requests that were not what the client sent
}

// start listens on loopback until ctx ends and gives the URL.
func (u *upstream) start(ctx context.Context) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: u, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { s.Close() })
	go s.Serve(l)
	return "http://" + l.Addr().String(), nil
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	conversation, number, _ := strings.Cut(r.Header.Get(turnHeader), "/")
	i, err1 := strconv.Atoi(conversation)
	j, err2 := strconv.Atoi(number)
	if err1 != nil || err2 != nil || i < 0 || i >= len(u.turns) || j < 0 || j >= len(u.turns[i]) || !bytes.Equal(body, u.turns[i][j].request) {
		u.wrong.Add(1)
		http.Error(w, "this is not a request that was sent", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(u.turns[i][j].response)
}

// replay sends all conversations through the gateway, so many at a time, each over connections of its own, and compares
// every answer with the recorded one.
func replay(ctx context.Context, g *rig.Gateway, turns [][]turn, clients int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range clients {
		wg.Go(func() {
			for i := range next {
				if err := converse(ctx, g, i, turns[i]); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := range turns {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

func converse(ctx context.Context, g *rig.Gateway, i int, turns []turn) error {
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	for j, t := range turns {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.Base+"/v1/chat/completions", bytes.NewReader(t.request))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+g.Key)
		req.Header.Set(turnHeader, fmt.Sprintf("%d/%d", i, j))
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("conversation %d, turn %d: answered %s: %.300s", i, j, res.Status, body)
		}
		if !bytes.Equal(body, t.response) {
			return fmt.Errorf("conversation %d, turn %d: %w", i, j, errChanged)
		}
	}
	return nil
}

var errChanged = errors.New("the answer did not arrive as the upstream sent it")
