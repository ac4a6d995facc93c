package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/note"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

var errInjected = errors.New("injected")

// A story is a run over everything that a ledger writes, with one commit that fails, and what its writers were told.
type story struct {
	t     testing.TB
	c     Config
	point string // where the commit fails: "before" or "after" it took effect
	k     int64  // which commit fails, counted from 1; 0 for none

	commits atomic.Int64
	hit     atomic.Bool  // the commit has failed
	told    bool         // and somebody was told
	back    atomic.Int64 // by how much the clock was turned back

	acked   map[int64]*kept
	refused []fairlead.ID
	intents []fairlead.ID
}

// kept is an acknowledged fact with its content.
type kept struct {
	id      fairlead.ID
	content []fairlead.Content
	body    []byte
}

func newStory(t testing.TB, point string, k int64) *story {
	s := &story{t: t, c: config(t), point: point, k: k, acked: map[int64]*kept{}}
	s.c.Checkpoint = time.Hour
	start := time.Now()
	s.c.Now = func() time.Time { return start.Add(-time.Duration(s.back.Load())) }
	s.c.Fault = func(p string) error {
		if p == "before" {
			s.commits.Add(1)
		}
		if s.commits.Load() == s.k && p == s.point && s.hit.CompareAndSwap(false, true) {
			return errInjected
		}
		return nil
	}
	return s
}

// fails accepts the error of the one operation that met the fault, and no other.
func (s *story) fails(what string, err error) bool {
	s.t.Helper()
	if err == nil {
		return false
	}
	if !errors.Is(err, errInjected) || s.told {
		s.t.Fatalf("%s: %v", what, err)
	}
	s.told = true
	return true
}

// open opens the ledger; where that fails it must succeed the second time.
func (s *story) open() *Ledger {
	s.t.Helper()
	l, err := Open(s.t.Context(), s.c)
	if s.fails("opening", err) {
		if l, err = Open(s.t.Context(), s.c); err != nil {
			s.t.Fatalf("opening once more: %v", err)
		}
	}
	return l
}

// append records a fact with content, again if it is refused: the ledger must go on working.
func (s *story) append(l *Ledger, scope *Scope, f *fairlead.Fact, body string) {
	s.t.Helper()
	again := *f
	seq, err := l.Append(s.t.Context(), f, l.Vault().Seal(scope, "request", []byte(body), nil, nil)...)
	if s.fails("appending", err) {
		if s.point == "after" {
			s.t.Fatalf("%s is on disk, and its writer was told that it is not", f.ID)
		}
		s.refused = append(s.refused, f.ID)
		f = &again
		if seq, err = l.Append(s.t.Context(), f, l.Vault().Seal(scope, "request", []byte(body), nil, nil)...); err != nil {
			s.t.Fatalf("after a commit that failed: %v", err)
		}
	}
	s.ack(seq, f, body)
}

func (s *story) ack(seq int64, f *fairlead.Fact, body string) {
	s.t.Helper()
	if s.acked[seq] != nil {
		s.t.Fatalf("two facts were told that they are event %d", seq)
	}
	s.acked[seq] = &kept{f.ID, f.Content, []byte(body)}
	if f.Kind == fairlead.KindCallIntent {
		s.intents = append(s.intents, f.ID)
	}
}

// together records n facts in one commit.
func (s *story) together(l *Ledger, scope *Scope, n int) {
	s.t.Helper()
	gate, held := make(chan struct{}), make(chan struct{})
	hold := &Pending{done: make(chan struct{}), run: func(*sqlite.Conn) error { close(held); <-gate; return nil }}
	l.queue <- hold
	select {
	case <-held:
	case <-hold.done:
		s.t.Fatalf("the ledger does not work any more: %v", hold.err)
	}
	facts, bodies, pending := make([]*fairlead.Fact, n), make([]string, n), make([]*Pending, n)
	for i := range facts {
		facts[i], bodies[i] = fact(i), fmt.Sprintf(`{"together":%d,"text":"as long as it takes to be worth finding again"}`, i)
		p, err := l.Send(s.t.Context(), facts[i], l.Vault().Seal(scope, "request", []byte(bodies[i]), nil, nil)...)
		if err != nil {
			s.t.Fatal(err)
		}
		pending[i] = p
	}
	close(gate)
	_, err := hold.Wait(s.t.Context())
	s.fails("holding", err)
	failed := 0
	for i, p := range pending {
		seq, err := p.Wait(s.t.Context())
		switch {
		case err == nil:
			s.ack(seq, facts[i], bodies[i])
		case !errors.Is(err, errInjected) || s.told || s.point == "after":
			s.t.Fatalf("in a commit of %d: %v", n, err)
		default:
			failed++
			s.refused = append(s.refused, facts[i].ID)
		}
	}
	if failed > 0 {
		if failed != n {
			s.t.Fatalf("of %d facts of one commit %d failed", n, failed)
		}
		s.told = true
		s.together(l, scope, n)
	}
}

// packed waits until the writer has had the idle time in which it makes one segment of the first 256 events.
func (s *story) packed(l *Ledger) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		rows, err := inspector{l.Reader}.number(s.t.Context(), "select count(*) from segment where first < ?", verify.TileWidth)
		if err != nil {
			s.t.Fatal(err)
		}
		if rows == 1 || s.hit.Load() && !s.told {
			return // it is done, or the fault met it
		}
	}
	s.t.Fatal("the first 256 events were never packed")
}

// play writes everything that a ledger writes: a new folder, keys, scopes, blobs, tiles, checkpoints, packed segments, a
// clock that went back, and, after a death that leaves calls open, their outcomes.
func (s *story) play() {
	t := s.t
	l := s.open()
	app, err := l.Vault().AppScope(t.Context(), "default", "app")
	if err != nil {
		t.Fatal(err)
	}
	subject, err := l.Vault().SubjectScope(t.Context(), app, "subject")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		scope := subject
		if i%2 == 1 {
			if scope, err = l.Vault().NewScope(app); err != nil {
				t.Fatal(err)
			}
		}
		s.append(l, scope, fact(i), fmt.Sprintf(`{"single":%d,"text":%q}`, i, strings.Repeat("said again and again, ", 20)))
	}
	s.fails("signing", l.SignNow(t.Context()))
	s.together(l, subject, 300)
	s.packed(l)
	for range 3 {
		s.append(l, subject, &fairlead.Fact{Kind: fairlead.KindCallIntent}, `{"open":true}`)
	}
	done := &fairlead.Fact{Kind: fairlead.KindCallOutcome, Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: s.intents[0], Assurance: fairlead.Derived}}}
	s.append(l, subject, done, `{"done":true}`)
	s.fails("signing", l.SignNow(t.Context()))
	s.fails("probing", l.Probe(t.Context()))
	s.back.Store(int64(time.Minute))
	s.append(l, subject, fact(7), `{"late":true}`)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = s.open()
	if app, err = l.Vault().AppScope(t.Context(), "default", "app"); err != nil {
		t.Fatal(err)
	}
	s.append(l, app, fact(8), `{"after":true}`)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// check looks at the folder as somebody who comes later.
func (s *story) check() {
	t := s.t
	s.c.Fault = nil
	// It opens for writing: the log extends what was signed, whatever was signed when.
	l := open(t, s.c)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(s.c.Dir, s.c.Keys)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, _, err := r.VerifierKeys()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := verify.Log(t.Context(), r.Inspect(), keys, verify.LogOptions{Since: s.head()})
	if err != nil || !rep.OK() || rep.Unsigned != 0 {
		t.Fatalf("the log is not whole: %v %v, %d events unsigned", err, rep.Problems, rep.Unsigned)
	}
	count, outcomes := map[fairlead.ID]int{}, map[fairlead.ID]int{}
	err = r.Events(t.Context(), 0, func(seq int64, b []byte) error {
		e, err := verify.ParseEnvelope(b)
		if err != nil {
			return err
		}
		count[e.ID]++
		if k := s.acked[seq]; k != nil && k.id != e.ID {
			return fmt.Errorf("event %d is %s, and %s was told that it is", seq, e.ID, k.id)
		}
		if e.Kind == fairlead.KindCallOutcome {
			outcomes[e.Link(fairlead.RelCompletes)]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for seq, k := range s.acked {
		if count[k.id] != 1 {
			t.Errorf("event %d was acknowledged and is there %d times", seq, count[k.id])
		}
		o, err := r.Vault().Open(t.Context(), k.content[len(k.content)-1])
		if err != nil || !bytes.Equal(o.Body, k.body) {
			t.Errorf("event %d: its content is %q, %v; want %q", seq, o.Body, err, k.body)
		}
	}
	for _, id := range s.refused {
		if count[id] != 0 {
			t.Errorf("%s was refused and is in the log", id)
		}
	}
	for _, id := range s.intents {
		if outcomes[id] != 1 {
			t.Errorf("the call %s has %d outcomes", id, outcomes[id])
		}
	}
}

// head is the newest checkpoint that was kept outside the data folder.
func (s *story) head() []byte {
	heads, err := filepath.Glob(filepath.Join(s.c.Keys, "*", "head"))
	if err != nil || len(heads) != 1 {
		s.t.Fatalf("%d logs were signed (%v)", len(heads), err)
	}
	b, err := os.ReadFile(heads[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// TestEveryCommitFails makes each commit of a story fail in turn, once so that nothing was persisted and once so that
// everything was. Whichever it is, the ledger goes on, and nobody was told anything that is not so.
func TestEveryCommitFails(t *testing.T) {
	dry := newStory(t, "", 0)
	dry.play()
	dry.check()
	last := dry.commits.Load()
	if len(dry.acked) != 312 || last < 20 {
		t.Fatalf("the story has %d facts and %d commits", len(dry.acked), last)
	}
	for _, point := range []string{"before", "after"} {
		for k := int64(1); k <= last; k++ {
			t.Run(fmt.Sprintf("%s/%d", point, k), func(t *testing.T) {
				t.Parallel()
				s := newStory(t, point, k)
				s.play()
				if s.commits.Load() >= k && !s.hit.Load() {
					t.Fatal("the fault was not injected")
				}
				s.check()
			})
		}
	}
}

// TestDeathBetweenKeysAndOrigin leaves keys without a log, as a process does that dies between making the two.
func TestDeathBetweenKeysAndOrigin(t *testing.T) {
	for _, origin := range []string{"", "example.com/log"} {
		for _, point := range []string{"before", "after"} {
			t.Run(origin+point, func(t *testing.T) {
				c := config(t)
				c.Origin = origin
				c.Fault = func(p string) error {
					if p == point {
						return errInjected
					}
					return nil
				}
				if _, err := Open(t.Context(), c); !errors.Is(err, errInjected) {
					t.Fatalf("opening: %v", err)
				}
				if keys, _ := filepath.Glob(filepath.Join(c.Keys, "*", "log.key")); len(keys) != 1 {
					t.Fatalf("there are %d keys", len(keys))
				}
				c.Fault = nil
				for range 2 {
					l := open(t, c)
					if origin != "" && l.Origin() != origin {
						t.Fatalf("the log is called %s", l.Origin())
					}
					appendMany(t, l, 3)
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
				}
				s := &story{t: t, c: c}
				if origin != "" {
					s.check()
				}
				r, err := OpenReader(c.Dir, "")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				text, _, err := r.VerifierKeys()
				if err != nil || !strings.Contains(text, r.Origin()) {
					t.Fatalf("the public keys in the data folder are not those of %s: %q, %v", r.Origin(), text, err)
				}
			})
		}
	}
}

// TestLostDatabaseDoesNotFork: keys that have signed do not start a second history under the same name.
func TestLostDatabaseDoesNotFork(t *testing.T) {
	c := config(t)
	c.Origin = "example.com/log"
	l := open(t, c)
	appendMany(t, l, 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrFork) {
		t.Fatalf("a new log was begun under the name of one that was signed: %v", err)
	}
}

// TestOtherHistoryDoesNotFork: a database that has gone another way than the one that was signed is refused, also when
// it is longer.
func TestOtherHistoryDoesNotFork(t *testing.T) {
	c := config(t)
	c.Origin = "example.com/log"
	more := func(n int) []byte {
		l := open(t, c)
		appendMany(t, l, n)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Signed()
	}
	old := more(3)
	first := c.Dir
	c.Dir = filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(c.Dir, os.DirFS(first)); err != nil {
		t.Fatal(err)
	}
	head := filepath.Join(c.Keys, "example.com_log", "head")
	c.Dir, first = first, c.Dir
	newer := more(3)
	// The backup goes on, as if the keys folder had been restored with it.
	if err := os.WriteFile(head, old, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Dir = first
	more(20)
	if err := os.WriteFile(head, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrFork) || !strings.Contains(err.Error(), "are not those that were signed") {
		t.Fatalf("another history was opened for writing: %v", err)
	}
}

// TestKeysCannotBeWritten: without a place for keys there is no log, and without a place for the head nothing is
// signed; recording goes on.
func TestKeysCannotBeWritten(t *testing.T) {
	c := config(t)
	if err := os.WriteFile(c.Keys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.Keys) {
		t.Fatalf("with a file for a keys folder: %v", err)
	}
	if err := os.Remove(c.Keys); err != nil {
		t.Fatal(err)
	}
	l := open(t, c)
	if err := l.SignNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	signed := l.Signed()
	away := c.Keys + "-away"
	if err := os.Rename(c.Keys, away); err != nil {
		t.Fatal(err)
	}
	appendMany(t, l, 5)
	if err := l.SignNow(t.Context()); err == nil || !strings.Contains(err.Error(), "outside the data folder") {
		t.Fatalf("signing without a place for the head: %v", err)
	}
	if !bytes.Equal(l.Signed(), signed) {
		t.Fatal("a checkpoint was published that is not kept outside the data folder")
	}
	if _, err := l.Checkpoint(t.Context(), 2); !errors.Is(err, ErrNoCheckpoint) {
		t.Fatalf("a checkpoint was stored that is not kept outside the data folder (%v)", err)
	}
	if err := os.Rename(away, c.Keys); err != nil {
		t.Fatal(err)
	}
	appendMany(t, l, 5)
	if err := l.SignNow(t.Context()); err != nil {
		t.Fatalf("when there is a place again: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	(&story{t: t, c: c}).check()
}

// TestDamagedHead: a head that cannot be believed is neither ignored nor replaced; reading goes on.
func TestDamagedHead(t *testing.T) {
	c := config(t)
	c.Origin = "example.com/log"
	l := open(t, c)
	appendMany(t, l, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	head := filepath.Join(c.Keys, "example.com_log", "head")
	good, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	other := config(t)
	other.Origin = c.Origin
	l = open(t, other)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	foreign := l.Signed()
	flipped := bytes.Clone(good)
	flipped[bytes.IndexByte(flipped, '\n')+1] ^= 1 // the size
	n, err := note.Open(good, nil)
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		n = unverified.Note
	}
	for what, bad := range map[string][]byte{"empty": {}, "cut": good[:len(good)/2], "zeros": make([]byte, len(good)),
		"flipped": flipped, "unsigned": []byte(n.Text), "of other keys": foreign} {
		if err := os.WriteFile(head, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "signed head in the keys folder") {
			t.Errorf("%s: %v", what, err)
		}
		if kept, _ := os.ReadFile(head); !bytes.Equal(kept, bad) {
			t.Errorf("%s: the head was replaced", what)
		}
		r, err := OpenReader(c.Dir, c.Keys)
		if err != nil {
			t.Errorf("%s: it cannot be read either: %v", what, err)
			continue
		}
		r.Close()
	}
	if err := os.WriteFile(head, good, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, c)
}

// TestMigrationStopsHalfway: a database that was made and not yet given its tables, or its name, is a new one.
func TestMigrationStopsHalfway(t *testing.T) {
	for version := range 2 {
		c := config(t)
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		conn, err := sqlite.OpenConn(filepath.Join(c.Dir, ledgerFile))
		if err != nil {
			t.Fatal(err)
		}
		if version == 1 {
			if err := sqlitex.ExecuteScript(conn, migrations[0]+"; pragma user_version=1", nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := OpenReader(c.Dir, c.Keys); version == 1 && err == nil {
			size, _, err := r.Head(context.Background())
			if err != nil || size != 0 {
				t.Errorf("a log that was not begun has %d events, %v", size, err)
			}
			r.Close()
		}
		l := open(t, c)
		appendMany(t, l, 3)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		(&story{t: t, c: c}).check()
	}
}
