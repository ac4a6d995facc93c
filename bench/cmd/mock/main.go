// Command mock is an upstream in the shape of OpenAI's chat completions, for measuring gateways on loopback: an answer
// of about 1 KB, or a stream of -chunks events when the body asks for "stream":true.
//
// Every event of a stream carries its send time in delta.content ("t=NANOSECONDS "), from which the load generator on
// the same machine reads how long one event is under way. Requests are not kept; a body may have 64 MiB.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/rig"
)

// A mock answers requests.
type mock struct {
	chunks  int
	gap     time.Duration
	answers atomic.Uint64
	buffers sync.Pool
}

func main() {
	addr := flag.String("addr", "127.0.0.1:9000", "loopback `address` to listen on")
	m := &mock{buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	flag.IntVar(&m.chunks, "chunks", 50, "content events in a stream")
	flag.DurationVar(&m.gap, "gap", 0, "pause between the events of a stream")
	flag.Parse()
	if err := serve(*addr, m); err != nil {
		fmt.Fprintln(os.Stderr, "mock:", err)
		os.Exit(1)
	}
}

func serve(addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		return errors.Join(fmt.Errorf("%s is not a loopback address", addr), l.Close())
	}
	return (&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
}

// ServeHTTP answers any POST, whatever its path, so that a gateway may prefix it.
func (m *mock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "the mock upstream takes POST only", http.StatusMethodNotAllowed)
		return
	}
	buf := m.buffers.Get().(*bytes.Buffer)
	defer m.buffers.Put(buf)
	buf.Reset()
	if _, err := io.Copy(buf, http.MaxBytesReader(w, r.Body, 64<<20)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := fmt.Sprintf("chatcmpl-mock%024d", m.answers.Add(1))
	if bytes.Contains(buf.Bytes(), []byte(`"stream":true`)) {
		m.stream(w, r, id)
		return
	}
	answer := whole(id)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	io.WriteString(w, answer)
}

func whole(id string) string {
	return `{"id":"` + id + `","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini-2024-07-18",` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":"` + rig.Answer +
		`","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":190,` +
		`"completion_tokens":96,"total_tokens":286,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},` +
		`"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},"service_tier":"default",` +
		`"system_fingerprint":"fp_mock"}`
}

func (m *mock) stream(w http.ResponseWriter, r *http.Request, id string) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	flush := http.NewResponseController(w)
	head := `data: {"id":"` + id + `","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini-2024-07-18",` +
		`"service_tier":"default","system_fingerprint":"fp_mock","choices":[{"index":0,"delta":{`
	for i := range m.chunks {
		if i > 0 && m.gap > 0 {
			select {
			case <-time.After(m.gap):
			case <-r.Context().Done():
				return
			}
		}
		event := head + `"content":"t=` + strconv.FormatInt(time.Now().UnixNano(), 10) + ` "},"logprobs":null,"finish_reason":null}]}` + "\n\n"
		if _, err := io.WriteString(w, event); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
	}
	io.WriteString(w, head+`},"logprobs":null,"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
}
