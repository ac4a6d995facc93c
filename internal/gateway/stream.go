package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// While an answer streams, a progress fact every so many bytes or so much time bounds what a crash could lose.
const (
	progressBytes = 64 << 10
	progressEvery = time.Second
)

// streaming is an answer on its way through.
type streaming struct {
	c        *call
	o        *outcome
	rc       *http.ResponseController
	framer   wire.Framer
	reader   dialect.Stream
	raw      []byte // every byte of the answer so far, released or held
	released int    // how many of them the client was given
	held     bool   // from here on nothing is released before the outcome is durable
	begun    bool   // an event has come
	strange  bool   // enforce mode: something came that another reader may read otherwise

	mac      *ledger.MAC
	hashed   int
	reported int
	last     time.Time
}

// chunks is read space for streams.
var chunks = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// stream passes an answer on as it comes, but for its end: whatever carries a finish reason waits until the outcome is
// durable.
func (c *call) stream(ctx context.Context, cancel context.CancelCauseFunc, res *reply, o *outcome) {
	defer res.Body.Close()
	o.status = res.StatusCode
	copyHeader(c.w.Header(), res.Header)
	c.w.WriteHeader(res.StatusCode)
	s := &streaming{c: c, o: o, rc: http.NewResponseController(c.w), last: c.g.now()}
	s.framer.Max = int(c.s.MaxResponse) // one event may carry the whole answer, and all of it is kept anyway
	if c.target.known {
		s.reader = c.target.provider.dialect.Stream(c.target.route)
		if c.target.provider.Enforce {
			s.reader.HoldTools()
		}
	}
	if c.scope != nil {
		s.mac = c.scope.NewMAC()
	}
	idle := time.AfterFunc(c.s.StreamIdle, func() { cancel(errTimeout) })
	defer idle.Stop()
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	for {
		n, err := res.Body.Read(*buf)
		if n > 0 {
			idle.Reset(c.s.StreamIdle)
			if werr := s.take((*buf)[:n]); werr != nil {
				cancel(werr)
				s.end(werr)
				return
			}
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && err != io.EOF {
				err = cause
			}
			s.end(err)
			return
		}
	}
}

// errClientGone is the error of a client that takes no more.
var errClientGone = errors.New("the client went away")

// take takes in a chunk and releases what may be released.
func (s *streaming) take(chunk []byte) error {
	if int64(len(s.raw)+len(chunk)) > s.c.s.MaxResponse {
		return errAnswerSize
	}
	before := len(s.raw)
	s.raw = append(s.raw, chunk...)
	free := s.released // never a part of an event: more of it may carry the end
	at := before - len(s.framer.Rest())
	err := s.framer.Push(chunk, func(ev wire.Event) error {
		if s.reader == nil {
			free = at // nobody can tell which event is the end: each waits for the next
		} else if s.event(ev) {
			s.held = true
		}
		at += len(ev.Raw)
		if s.reader != nil && !s.held {
			free = at
		}
		return nil
	})
	if err != nil {
		return err
	}
	if free > s.released {
		if err := s.release(free); err != nil {
			return err
		}
	}
	s.progress()
	return nil
}

// event takes in an event, and reports whether it is held. What enforce mode cannot read like any other reader is held: a
// name that stands twice, lines that are no field of an event but could be, say, a body of JSON that is sent as a stream.
func (s *streaming) event(ev wire.Event) bool {
	hold := s.reader.Event(ev)
	if s.c.target.provider.Enforce && !s.strange {
		s.strange = !fieldsOnly(ev.Raw, !s.begun) || hold && !readable(ev.Data)
	}
	s.begun = true
	return hold || s.strange
}

// readable reports whether the data of an event means the same to everybody.
func readable(data []byte) bool {
	if len(data) == 0 || bytes.HasPrefix(data, []byte("[DONE]")) {
		return true
	}
	return wire.Check(data, wire.Limits{}) == nil && wire.Root(data).Kind() == '{'
}

// fieldsOnly reports whether an event has no lines but blank ones, comments and the fields that events have.
func fieldsOnly(raw []byte, first bool) bool {
	if first {
		raw = bytes.TrimPrefix(raw, []byte("\xEF\xBB\xBF"))
	}
	for len(raw) > 0 {
		line := raw
		if i := bytes.IndexAny(raw, "\r\n"); i >= 0 {
			line, raw = raw[:i], raw[i+1:]
		} else {
			raw = nil
		}
		field, _, _ := bytes.Cut(line, []byte(":"))
		switch string(field) {
		case "", "data", "event", "id", "retry":
		default:
			return false
		}
	}
	return true
}

// release gives the client the bytes up to end.
func (s *streaming) release(end int) error {
	if _, err := s.c.w.Write(s.raw[s.released:end]); err != nil {
		return errClientGone
	}
	s.released = end
	if err := s.rc.Flush(); err != nil {
		return errClientGone
	}
	return nil
}

// progress records how far a long answer has come.
func (s *streaming) progress() {
	now := s.c.g.now()
	if s.released-s.reported < progressBytes && (now.Sub(s.last) < progressEvery || s.released == s.reported) {
		return
	}
	s.last, s.reported = now, s.released
	if s.c.gapped || s.mac == nil {
		return
	}
	s.mac.Write(s.raw[s.hashed:s.released])
	s.hashed = s.released
	sum := s.mac.Sum()
	f := &fairlead.Fact{Kind: fairlead.KindCallPartial, Tenant: s.c.intent.Tenant,
		Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: s.c.intent.ID, Assurance: fairlead.Derived}},
		Attrs: []fairlead.Attr{{Name: "fairlead.released.bytes", Value: int64(s.released)}, {Name: "fairlead.released.hmac", Value: fmt.Sprintf("%x", sum)}}}
	// Nobody waits for it: it bounds a loss, it does not prevent one.
	if _, err := s.c.g.conf.Ledger.Send(s.c.r.Context(), f); err != nil {
		s.c.g.conf.Log.Warn("progress of a stream could not be recorded", "call", s.c.intent.ID.String(), "err", err)
	}
}

// judge decides about the tool calls that are held and takes out those that may not go out. On an error nothing of what
// is held may go out.
func (s *streaming) judge() error {
	c, o := s.c, s.o
	if o.status >= 300 || o.answer == nil {
		return nil
	}
	enforce := c.target.provider.Enforce
	if enforce && (s.strange || o.answer.ErrorType == "fairlead.malformed_event") {
		return errUnjudged
	}
	var err error
	if o.tools, err = c.mediate(c.r.Context(), o.answer, s.wait); err != nil {
		return err
	}
	refused := withheld(o.tools)
	if len(refused) == 0 {
		return nil
	}
	out, err := s.reader.Withhold(s.raw[s.released:], refused)
	if err != nil {
		c.g.conf.Log.Error("tool calls could not be taken out of a stream: its end is withheld", "call", c.intent.ID.String(), "err", err)
		return errUnjudged
	}
	o.original = s.raw
	s.raw = append(s.raw[:s.released:s.released], out...)
	ans := c.target.provider.dialect.Stream(c.target.route)
	f := wire.Framer{Max: len(s.raw) + 1}
	each := func(ev wire.Event) error { ans.Event(ev); return nil }
	if f.Push(s.raw, each) != nil || f.Close(each) != nil {
		return errUnjudged
	}
	*o.answer = ans.Answer()
	c.g.rewritten.learn(c.link.Domain, o.answer, refused)
	return nil
}

// wait tells the client, between two events, that the stream goes on later.
func (s *streaming) wait() {
	const comment = ": waiting for an approval\n\n"
	held := append([]byte(comment), s.raw[s.released:]...)
	s.raw = append(s.raw[:s.released:s.released], held...)
	_ = s.release(s.released + len(comment)) // a client that is gone shows in its context
}

// end closes the stream: err is io.EOF at its proper end.
func (s *streaming) end(err error) {
	c, o := s.c, s.o
	if s.reader != nil {
		if err == io.EOF {
			_ = s.framer.Close(func(ev wire.Event) error { s.event(ev); return nil }) // a last event without a blank line
		}
		ans := s.reader.Answer()
		o.answer, o.errType = &ans, ans.ErrorType
	}
	if err == io.EOF {
		if jerr := s.judge(); jerr != nil {
			err = jerr
		}
	}
	var tail []byte
	switch {
	case err == io.EOF:
		o.kind = outcomeCompleted
		switch ans := o.answer; {
		case o.status >= 300:
			o.kind = outcomeStatus
		case ans == nil || ans.Complete:
		case ans.ErrorType != "" && !strings.HasPrefix(ans.ErrorType, "fairlead."): // not one that we could not read
			o.kind = outcomeStatus
		case len(ans.FinishReasons) == 0:
			// Nothing says that this is all of it; a connection that was cut can look like this.
			o.kind, o.errType = outcomeUpstream, "stream_incomplete"
		}
	case errors.Is(err, errClientGone) || c.r.Context().Err() != nil && !errors.Is(err, errTimeout) && !errors.Is(err, errAnswerSize):
		o.kind, o.errType, o.released = outcomeAborted, "client_gone", int64(s.released)
		// What was written may be on its way still; the record holds exactly what was handed to the connection.
		_ = c.close(o, s.raw[:s.released]) // nobody is left to be told
		return
	default:
		r := c.classify(o, err)
		if r == nil {
			r = &refusal{status: http.StatusBadGateway, code: "upstream_broken", message: err.Error()}
		}
		if !errors.Is(err, errTimeout) && !errors.Is(err, errAnswerSize) && !errors.Is(err, errUnjudged) {
			o.errType = "stream_broken"
		}
		if c.target.provider.Enforce && s.reader != nil {
			// What is held was not decided about, or could not be.
			o.original = s.raw
			s.raw = s.raw[:s.released:s.released]
		}
		// An event that was cut in the middle is not passed on: what follows must not be glued to it.
		s.raw = s.raw[:len(s.raw)-len(s.rest())]
		tail = c.target.provider.dialect.RefuseEvent(c.target.route, dialect.Refusal{Status: r.status, Code: r.code,
			Message: "Fairlead: " + r.message, DecisionID: c.intent.ID.String(), Retry: r.retry})
	}
	s.raw = append(s.raw, tail...)
	if err := c.close(o, s.raw); err != nil {
		// The end is withheld: without it no client takes the answer for complete.
		tail := c.target.provider.dialect.RefuseEvent(c.target.route, dialect.Refusal{Status: unrecorded.status, Code: unrecorded.code,
			Message: "Fairlead: " + unrecorded.message, DecisionID: c.intent.ID.String(), Retry: true})
		s.raw = append(s.raw[:s.released:s.released], tail...)
		_ = s.release(len(s.raw)) // told or gone
		return
	}
	err = s.release(len(s.raw))
	if err == nil {
		err = c.r.Context().Err()
	}
	c.deliver(o, err, int64(len(s.raw)))
}

func (s *streaming) rest() []byte {
	rest := s.framer.Rest()
	if n := len(s.raw) - s.released; len(rest) > n {
		rest = rest[len(rest)-n:]
	}
	return rest
}
