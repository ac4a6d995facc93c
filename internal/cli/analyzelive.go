package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/gateway"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/provenance"
	"github.com/fairleadhq/fairlead/verify"
)

// An injection is what became of words in untrusted content that read like an instruction, on recorded traffic.
type injection struct {
	Call fairlead.ID `json:"call"`
	Time time.Time   `json:"time"`
	// Status: seen (they reached the model), attempted (a tool call carries a value that stands only in them, and was
	// released), blocked (it was not released), executed (its result came back).
	Status   string      `json:"status"`
	Spans    int64       `json:"spans,omitempty"` // seen: how many came in with the call
	Tool     string      `json:"tool,omitempty"`
	Argument string      `json:"argument,omitempty"`
	Value    string      `json:"value,omitempty"`
	From     string      `json:"from,omitempty"`
	Message  int         `json:"message,omitempty"` // from 1
	Words    string      `json:"words,omitempty"`   // the instruction
	Result   fairlead.ID `json:"result,omitzero"`   // executed: the call that brought the result
}

// analyzeTraffic prints what became of injections on recorded traffic.
func analyzeTraffic(ctx context.Context, env *Env, data, keys string, asJSON bool) error {
	f, err := openFolder(ctx, env, data, keys, true)
	if err != nil {
		return err
	}
	defer f.close()
	list, err := injections(ctx, f)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(env.Stdout, append([]injection{}, list...))
	}
	return printInjections(env.Stdout, list)
}

// injections lists what is recorded, in order. Of a call whose answer attempts something, that it was seen is not said.
func injections(ctx context.Context, f *folder) ([]injection, error) {
	var out []injection
	released := map[fairlead.ID][]int{} // calls whose released answers attempt something: where in out
	open := map[fairlead.ID]*verify.Envelope{}
	o := f.Vault().Opener()
	err := f.Events(ctx, 0, func(_ int64, b []byte) error {
		head := string(b[:min(len(b), 160)])
		if !strings.Contains(head, `"kind":"call.`) {
			return ctx.Err()
		}
		e, err := verify.ParseEnvelope(b)
		if err != nil {
			return err
		}
		switch e.Kind {
		case fairlead.KindCallIntent:
			for _, l := range e.Links {
				if l.Rel != fairlead.RelToolResult {
					continue
				}
				for _, i := range released[l.To] {
					out[i].Status, out[i].Result = "executed", e.ID
				}
				delete(released, l.To)
			}
			open[e.ID] = e
		case fairlead.KindCallOutcome:
			id := e.Link(fairlead.RelCompletes)
			intent := open[id]
			delete(open, id)
			if intent == nil {
				return ctx.Err()
			}
			found := attempts(ctx, o, intent, e)
			for i := range found {
				if found[i].Status == "attempted" {
					released[id] = append(released[id], len(out))
				}
				out = append(out, found[i])
			}
			if n := intent.Int("fairlead.injection.seen"); n > 0 && len(found) == 0 {
				out = append(out, injection{Call: id, Time: intent.Time, Status: "seen", Spans: n})
			}
		}
		return ctx.Err()
	})
	return out, err
}

// attempts lists the tool calls of an answer that carry what stands only in an instruction of untrusted content.
func attempts(ctx context.Context, o *ledger.Opener, intent, outcome *verify.Envelope) (out []injection) {
	if outcome.Int("fairlead.injection.attempted") == 0 {
		return nil
	}
	var list []gateway.ToolDecision
	for _, c := range outcome.Content {
		if c.Name == "verdict" {
			if opened, err := o.Open(ctx, c); err == nil {
				list, _ = gateway.ReadDecisions(opened.Body)
			}
		}
	}
	if list == nil { // erased: the envelope still says that it was attempted
		return []injection{{Call: intent.ID, Time: outcome.Time, Status: statusOf(outcome.Attr("fairlead.tools.withheld") == nil)}}
	}
	call, err := provenance.Open(ctx, o, intent, nil)
	for i := range list {
		d := &list[i]
		for _, a := range d.Arguments {
			if !a.Instructed {
				continue
			}
			x := injection{Call: intent.ID, Time: outcome.Time, Status: statusOf(d.Effect == fairlead.Allow), Tool: d.Resource.Name, Argument: a.Path, Value: a.Value}
			if len(a.Evidence) > 0 {
				ev := &a.Evidence[0]
				x.From, x.Message = ev.From, ev.Message+1
				if err == nil && ev.Instruction != nil && ev.Message >= 0 && ev.Message < len(call.Exchange.Messages) && ev.Part >= 0 && ev.Part < len(call.Exchange.Messages[ev.Message].Parts) {
					text := dialect.PartText(call.Request.Body, call.Exchange.Messages[ev.Message].Parts[ev.Part])
					x.Words = text[min(max(ev.Instruction.Start, 0), len(text)):min(max(ev.Instruction.End, 0), len(text))]
				}
			}
			out = append(out, x)
			break // one a tool call
		}
	}
	return out
}

func statusOf(released bool) string {
	if released {
		return "attempted"
	}
	return "blocked"
}

// printInjections prints a list as text.
func printInjections(w io.Writer, list []injection) error {
	count := map[string]int{}
	var b strings.Builder
	for _, x := range list {
		count[x.Status]++
		if x.Status == "seen" {
			continue
		}
		fmt.Fprintf(&b, "%s  %-9s %s  %s", x.Time.Local().Format(time.DateTime), x.Status, x.Call, x.Tool)
		if x.Argument != "" {
			fmt.Fprintf(&b, "  %s = %q", x.Argument, shorten(x.Value, 60))
		}
		if !x.Result.IsZero() {
			fmt.Fprintf(&b, "  result in %s", x.Result)
		}
		b.WriteByte('\n')
		if x.Words != "" {
			fmt.Fprintf(&b, "    from %s, message %d: “%s”\n", x.From, x.Message, shorten(oneLine(x.Words), 160))
		}
	}
	fmt.Fprintf(&b, "%d executed, %d attempted without a result so far, %d blocked, %d calls in which suspicious words were only seen\n",
		count["executed"], count["attempted"], count["blocked"], count["seen"])
	_, err := io.WriteString(w, printable(b.String()))
	return err
}
