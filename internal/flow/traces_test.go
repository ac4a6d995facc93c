package flow

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/wire"
)

func TestScore(t *testing.T) {
	dir := os.Getenv("F_DATA")
	if dir == "" {
		t.Skip("no data")
	}
	r, err := Compile(Config{Infer: os.Getenv("F_NOINFER") == ""})
	if err != nil {
		t.Fatal(err)
	}
	show := os.Getenv("F_SHOW")
	for _, src := range strings.Fields("agentdojo r-judge luna tau-bench assebench-security agentharm") {
		if f := os.Getenv("F_SRC"); f != "" && f != src {
			continue
		}
		f, err := os.Open(filepath.Join(dir, "traces/train", src, "traces.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		type key struct{ dom, kind string }
		n, hit := map[key]int{}, map[key]int{}
		sc := bufio.NewScanner(f)
		sc.Buffer(nil, 1<<26)
		for sc.Scan() {
			line := sc.Bytes()
			var row struct {
				ID, Domain, Attack string
				Labels             struct {
					Present   bool  `json:"attack_present"`
					Succeeded bool  `json:"attack_succeeded"`
					Reached   *bool `json:"injection_reached_model"`
				}
			}
			if err := json.Unmarshal(line, &row); err != nil {
				t.Fatal(err)
			}
			kind := "benign"
			switch {
			case row.Labels.Present && row.Labels.Succeeded:
				kind = "hijacked"
			case row.Labels.Present && row.Labels.Reached != nil && !*row.Labels.Reached:
				kind = "unreached"
			case row.Labels.Present:
				kind = "resisted"
			case row.Labels.Succeeded:
				kind = "unsafe"
			}
			if wire.Check(line, wire.Limits{}) != nil {
				t.Fatal("bad line")
			}
			run, err := ReadRun(wire.Root(line).Get("messages"))
			if err != nil {
				t.Error(row.ID, err)
				continue
			}
			stopped := ""
			run.Calls(r, func(c *Context, rc RunCall) bool {
				i, call := rc.Message, rc.ToolCall
				p := c.ToolCall(call, true)
				for _, a := range p.Arguments {
					if a.Instructed {
						reg := ""
						if len(a.Evidence) > 0 && a.Evidence[len(a.Evidence)-1].Instruction != nil {
							ev := a.Evidence[len(a.Evidence)-1]
							for _, q := range c.parts {
								if q.message == ev.Message && q.index == ev.Part {
									reg = q.text[ev.Instruction.Start:ev.Instruction.End]
								}
							}
						}
						stopped = fmt.Sprintf("@%d %s %s=%.80q <- %.300q", i, call.Name, a.Path, a.Value, reg)
						return false
					}
				}
				return true
			})
			dom := src
			if src == "agentdojo" {
				dom += "/" + row.Domain
			}
			n[key{dom, kind}]++
			if stopped != "" {
				hit[key{dom, kind}]++
			}
			if (stopped != "") != (kind == "hijacked") && strings.Contains(show, kind) {
				fmt.Println(kind, row.ID, stopped)
			}
		}
		f.Close()
		for _, kind := range strings.Fields("hijacked resisted unreached benign unsafe") {
			tn, th := 0, 0
			for k, v := range n {
				if k.kind == kind {
					tn, th = tn+v, th+hit[k]
					if src == "agentdojo" {
						fmt.Printf("   %-22s %-9s %4d/%4d %5.1f%%\n", k.dom, kind, hit[k], v, 100*float64(hit[k])/float64(v))
					}
				}
			}
			if tn > 0 {
				fmt.Printf("%-22s %-9s %4d/%4d %5.1f%%\n", src, kind, th, tn, 100*float64(th)/float64(tn))
			}
		}
	}
}
