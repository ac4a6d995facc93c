// Command withheld answers like a provider behind a gateway that takes refused tool calls out of answers, so that the
// interop suites can see how the loops of official SDKs go on from there. It needs no gateway.
//
//	withheld -goldens DIR [-listen ADDR]
//
// The first path element names the scene, an answer from the golden files of package dialect in DIR: "none-left" has
// lost its only call, "one-left" and "other-left" still have a call of get_weather. A request that brings results
// or goes on with a user's message gets the answer "done", but only if a provider would accept it: every call has its
// result, every result its call, and nothing refers to what a provider does not have. It prints the base URL once it
// listens, and serves until it is killed. It belongs on loopback; requests are bounded at 1 MiB.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "serve at `ADDR`; port 0 takes a free one")
	goldens := flag.String("goldens", "", "read the answers from the golden files in `DIR`")
	flag.Parse()
	if err := serve(*listen, *goldens); err != nil {
		fmt.Fprintln(os.Stderr, "withheld:", err)
		os.Exit(1)
	}
}

func serve(addr, goldens string) error {
	s := &server{answers: map[string][]byte{}}
	for _, file := range []string{"chat", "chat-stream", "responses", "responses-stream", "anthropic", "anthropic-stream"} {
		archive, err := txtar.ParseFile(filepath.Join(goldens, file+".txtar"))
		if err != nil {
			return fmt.Errorf("reading the answers: %w", err)
		}
		for _, f := range archive.Files {
			if scene, ok := strings.CutSuffix(f.Name, "/out"); ok {
				s.answers[file+"/"+scene] = f.Data
			}
		}
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if _, err := fmt.Printf("http://%s\n", ln.Addr()); err != nil {
		return err
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	return srv.Serve(ln)
}

// A server serves answers by file and scene: "chat-stream/none-left".
type server struct{ answers map[string][]byte }

// files names the golden file for the answers of each path.
var files = map[string][2]string{
	"/v1/chat/completions": {"openai", "chat"},
	"/v1/responses":        {"openai", "responses"},
	"/v1/messages":         {"anthropic", "anthropic"},
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	scene, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	f, ok := files["/"+path]
	d, known := dialect.Lookup(f[0])
	if !ok || !known {
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return
	}
	rt, _ := dialect.Match(d, r.Method, "/"+path)
	ex, err := d.Read(rt, body)
	if err == nil {
		ex, err = d.Read(rt, d.Mend(rt, body, func(string) string { return "" })) // as a gateway sends it on
	}
	if err != nil {
		refuse(w, d, dialect.Refusal{Status: http.StatusBadRequest, Message: err.Error()})
		return
	}
	again, refusal := follows(&ex)
	if refusal != nil {
		refuse(w, d, *refusal)
		return
	}
	name, kind := f[1], "application/json"
	if ex.Stream {
		name, kind = name+"-stream", "text/event-stream"
	}
	if again {
		scene = "done"
	}
	answer, ok := s.answers[name+"/"+scene]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(answer) // who is gone misses it
}

// follows reports whether a request goes on from an answer, and why a provider would not accept it.
func follows(ex *fairlead.Exchange) (again bool, refusal *dialect.Refusal) {
	for _, ref := range ex.State {
		switch {
		case ref.Field == "thread.previous_message_id", ref.Field == "previous_response_id":
			// The provider's state has the refused call. A gateway must not build on it.
			return true, &dialect.Refusal{Resend: true, Message: ref.Value + " is not known"}
		case ref.Field == "item_reference" && strings.HasPrefix(ref.Value, "msg_fl_"):
			return true, &dialect.Refusal{Status: http.StatusNotFound, Message: "Item with id '" + ref.Value + "' not found."}
		}
	}
	open := map[string]bool{}
	for _, m := range ex.Messages {
		again = again || m.Role == fairlead.RoleAssistant
		for _, p := range m.Parts {
			switch p.Kind {
			case fairlead.PartToolCall:
				open[p.CallID] = true
			case fairlead.PartToolResult:
				if !open[p.CallID] {
					return again, &dialect.Refusal{Status: http.StatusBadRequest, Message: fmt.Sprintf("there is no call for the result %q", p.CallID)}
				}
				delete(open, p.CallID)
			}
		}
	}
	if len(open) > 0 {
		return again, &dialect.Refusal{Status: http.StatusBadRequest, Message: fmt.Sprintf("%d calls have no result", len(open))}
	}
	return again, nil
}

func refuse(w http.ResponseWriter, d dialect.Dialect, r dialect.Refusal) {
	status, header, body := d.Refuse(r)
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
