// Command sizebench measures how many bytes Fairlead's data folder needs for each inference. It replays recorded agent
// conversations through a running "fairlead serve": every turn resends the whole history, as clients do, and a mock
// upstream answers what the model answered. See bench/README.md.
//
// It keeps the conversations and their turns in memory (about 60 MB for the usual archive), writes only below -dir, and
// stops at -timeout.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/measure"
	"github.com/fairleadhq/fairlead/bench/internal/rig"
	"github.com/klauspost/compress/zstd"
)

// The target, as issue 2 sets it: how many times smaller than raw JSON, at least and as a stretch.
const (
	least   = 15.
	stretch = 20.
)

// A report is what is printed.
type report struct {
	Machine       measure.Machine `json:"machine"`
	Conversations int             `json:"conversations"`
	Inferences    int             `json:"inferences"`
	Clients       int             `json:"clients"`
	RawBytes      int64           `json:"raw_bytes"`
	ZstdBytes     int64           `json:"zstd_bytes"` // each body compressed alone
	StoredBytes   int64           `json:"stored_bytes"`
	Ratio         float64         `json:"ratio"`
	Files         []part          `json:"files"`
	Tables        []part          `json:"tables"`
}

type plan struct {
	archive, source string
	clients, most   int
	dir, program    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var p plan
	flag.StringVar(&p.archive, "traces", filepath.Join("..", "shared", "data", "traces-train.tar.zst"), "`archive` with the recorded conversations")
	flag.StringVar(&p.source, "source", "tau-bench", "which of its sources to replay")
	flag.IntVar(&p.clients, "clients", 4, "conversations at a time")
	flag.IntVar(&p.most, "n", 0, "replay only so many conversations; 0 for all")
	flag.StringVar(&p.dir, "dir", "", "`folder` to work in (the system's temporary folder by default)")
	flag.StringVar(&p.program, "fairlead", "", "the fairlead `program` (built from this tree by default)")
	asJSON := flag.Bool("json", false, "print JSON")
	timeout := flag.Duration("timeout", 15*time.Minute, "give up after this time")
	flag.Parse()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	r, err := p.run(ctx)
	switch {
	case errors.Is(err, errNoData):
		fmt.Printf("Nothing was measured: %v. Say where they are with -traces.\n", err)
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "sizebench:", err)
		os.Exit(1)
	case *asJSON:
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	default:
		err = r.print(os.Stdout)
	}
	if err != nil {
		os.Exit(1)
	}
}

func (p *plan) run(ctx context.Context) (*report, error) {
	conversations, err := readTraces(p.archive, p.source)
	if err != nil {
		return nil, err
	}
	if p.most > 0 {
		conversations = conversations[:min(p.most, len(conversations))]
	}
	r := &report{Machine: measure.ThisMachine(), Conversations: len(conversations), Clients: p.clients}
	turns := make([][]turn, len(conversations))
	z, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	for i, c := range conversations {
		turns[i] = c.turns()
		r.Inferences += len(turns[i])
		for _, t := range turns[i] {
			r.RawBytes += int64(len(t.request) + len(t.response))
			r.ZstdBytes += int64(len(z.EncodeAll(t.request, nil)) + len(z.EncodeAll(t.response, nil)))
		}
	}
	if r.Inferences == 0 {
		return nil, fmt.Errorf("%w: %s has no answers", errNoData, p.source)
	}
	dir, err := os.MkdirTemp(p.dir, "fairlead-sizebench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	data, err := p.record(ctx, dir, turns)
	if err != nil {
		return nil, err
	}
	if r.Files, r.StoredBytes, err = folder(data); err != nil {
		return nil, err
	}
	for _, f := range r.Files {
		if filepath.Ext(f.Name) == ".db" {
			parts, err := tables(filepath.Join(data, f.Name))
			if err != nil {
				return nil, err
			}
			r.Tables = append(r.Tables, parts...)
		}
	}
	r.Ratio = float64(r.RawBytes) / float64(r.StoredBytes)
	return r, nil
}

// record replays the turns through a gateway that starts and stops for it, and gives the data folder.
func (p *plan) record(ctx context.Context, dir string, turns [][]turn) (data string, err error) {
	program := p.program
	if program == "" {
		root, err := rig.Module(ctx)
		if err != nil {
			return "", err
		}
		if err := rig.Build(ctx, root, dir, "./cmd/fairlead"); err != nil {
			return "", err
		}
		program = filepath.Join(dir, "fairlead")
	}
	up := &upstream{turns: turns}
	url, err := up.start(ctx)
	if err != nil {
		return "", err
	}
	g, err := rig.StartGateway(ctx, rig.Unpinned, nil, program, dir, url)
	if err != nil {
		return "", err
	}
	err = replay(ctx, g, turns, p.clients)
	if stopped := g.Stop(); err == nil {
		err = stopped
	}
	if n := up.wrong.Load(); n > 0 {
		err = fmt.Errorf("%d requests did not arrive as they were sent: %w", n, err)
	}
	return g.Data, err
}

// print writes the report as Markdown.
func (r *report) print(w io.Writer) error {
	var b strings.Builder
	each := func(n int64) float64 { return float64(n) / float64(r.Inferences) }
	fmt.Fprintf(&b, "%s\n\n%d conversations, %d inferences, %d at a time\n\n", r.Machine, r.Conversations, r.Inferences, r.Clients)
	verdict := "**missed**"
	switch {
	case r.Ratio >= stretch:
		verdict = "both reached"
	case r.Ratio >= least:
		verdict = "reached, stretch missed"
	}
	b.WriteString("| | bytes per inference | raw JSON is |\n|---|--:|--:|\n")
	fmt.Fprintf(&b, "| raw JSON, request and response bodies | %.0f | |\n", each(r.RawBytes))
	fmt.Fprintf(&b, "| each body compressed alone (zstd) | %.0f | %.1f times larger |\n", each(r.ZstdBytes), float64(r.RawBytes)/float64(r.ZstdBytes))
	fmt.Fprintf(&b, "| **the whole data folder** (target ≥ %.0f, stretch %.0f: %s) | **%.0f** | **%.1f times larger** |\n", least, stretch, verdict, each(r.StoredBytes), r.Ratio)
	b.WriteString("\n| file | bytes per inference |\n|---|--:|\n")
	for _, f := range r.Files {
		fmt.Fprintf(&b, "| %s | %.1f |\n", f.Name, each(f.Bytes))
	}
	b.WriteString("\n| table or index | bytes per inference |\n|---|--:|\n")
	for _, t := range r.Tables {
		if each(t.Bytes) >= .05 {
			fmt.Fprintf(&b, "| %s | %.1f |\n", t.Name, each(t.Bytes))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
