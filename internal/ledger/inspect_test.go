package ledger

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// sampleLog makes a closed data folder of three hours: some 1,500 events, 300 blobs, a checkpoint for each hour. head is
// the newest checkpoint, as it stands outside the folder.
func sampleLog(t testing.TB) (c Config, keys verify.Keys, head []byte) {
	t.Helper()
	c = config(t)
	c.Checkpoint = time.Hour
	var now atomic.Int64
	now.Store(time.Date(2026, 11, 21, 12, 10, 0, 0, time.UTC).UnixMicro())
	c.Now = func() time.Time { return time.UnixMicro(now.Add(1000)) }
	l := open(t, c)
	app, err := l.Vault().AppScope(t.Context(), "default", "app")
	if err != nil {
		t.Fatal(err)
	}
	var scopes []*Scope
	for i := range 3 {
		s, err := l.Vault().SubjectScope(t.Context(), app, fmt.Sprint("subject ", i))
		if err != nil {
			t.Fatal(err)
		}
		scopes = append(scopes, s)
	}
	n := 0
	for _, count := range []int{401, 500, 600} {
		var last *Pending
		for range count {
			var blobs []*Blob
			if n%5 == 0 {
				blobs = l.Vault().Seal(scopes[n%3], "request", fmt.Appendf(nil, `{"number":%d}`, n), nil, nil)
			}
			if last, err = l.Send(t.Context(), fact(n), blobs...); err != nil {
				t.Fatal(err)
			}
			if n++; n%30 == 0 {
				if _, err := last.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := last.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.signHead(); err != nil {
			t.Fatal(err)
		}
		now.Add(time.Hour.Microseconds())
	}
	text, _, err := l.VerifierKeys()
	if err != nil {
		t.Fatal(err)
	}
	if keys, err = verify.ParseKeys(text); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return c, keys, l.Signed()
}

// vandal alters a data folder behind the ledger's back.
type vandal struct {
	t testing.TB
	c *sqlite.Conn
}

func (v vandal) exec(query string, args ...any) {
	v.t.Helper()
	if err := sqlitex.Execute(v.c, query, &sqlitex.ExecOptions{Args: args}); err != nil {
		v.t.Fatal(err)
	}
	if v.c.Changes() == 0 {
		v.t.Fatalf("%s changed nothing", query)
	}
}

func (v vandal) bytes(query string, args ...any) (out []byte) {
	v.t.Helper()
	err := sqlitex.Execute(v.c, query, &sqlitex.ExecOptions{Args: args, ResultFunc: func(s *sqlite.Stmt) error {
		out = make([]byte, s.ColumnLen(0))
		s.ColumnBytes(0, out)
		return nil
	}})
	if err != nil || out == nil {
		v.t.Fatalf("%s: %v", query, err)
	}
	return out
}

// segment edits the row that holds event seq; at is the event's place in it.
func (v vandal) segment(seq int64, edit func(list [][]byte, at int) [][]byte) {
	v.t.Helper()
	var first int64
	var list [][]byte
	err := sqlitex.Execute(v.c, "select first, count, codec, data from segment where first <= ? order by first desc limit 1",
		&sqlitex.ExecOptions{Args: []any{seq}, ResultFunc: func(s *sqlite.Stmt) error {
			first = s.ColumnInt64(0)
			data := make([]byte, s.ColumnLen(3))
			s.ColumnBytes(3, data)
			_, err := decodeSegment(nil, s.ColumnInt(2), s.ColumnInt(1), data, func(e []byte) error {
				list = append(list, bytes.Clone(e))
				return nil
			})
			return err
		}})
	if err != nil || seq-first >= int64(len(list)) {
		v.t.Fatalf("event %d: %v", seq, err)
	}
	list = edit(list, int(seq-first))
	codec, data, _ := encodeSegment(nil, list)
	v.exec("update segment set count = ?, codec = ?, data = ? where first = ?", len(list), codec, data, first)
}

// event replaces one event.
func (v vandal) event(seq int64, edit func(e []byte) []byte) {
	v.t.Helper()
	v.segment(seq, func(list [][]byte, at int) [][]byte {
		list[at] = edit(list[at])
		return list
	})
}

func (v vandal) get(seq int64) (e []byte) {
	v.segment(seq, func(list [][]byte, at int) [][]byte { e = list[at]; return list })
	return e
}

func replace(old, with string) func([]byte) []byte {
	return func(e []byte) []byte {
		out := bytes.Replace(e, []byte(old), []byte(with), 1)
		if bytes.Equal(out, e) {
			panic("nothing replaced in " + string(e))
		}
		return out
	}
}

// faults are all the ways to alter a data folder, and what verification must say: parts of its lines. Event 1,500 is
// the second to last; tile 0/5 is not complete.
var faults = []struct {
	name  string
	alter func(v vandal)
	want  []string
}{
	{"change an event", func(v vandal) { v.event(300, replace(`"n":299`, `"n":999`)) },
		[]string{"event 300: its hash is not the one in tile 0/1; the tiles add up to the tree head: the event was altered", "checkpoint of size 902: its root"}},
	{"change the first event", func(v vandal) { v.event(0, replace(`ledger.opened/1`, `ledger.opened/2`)) }, []string{"event 0: "}},
	{"change the last event of a tile", func(v vandal) { v.event(511, replace(`"n":510`, `"n":0`)) }, []string{"event 511: "}},
	{"change the last event", func(v vandal) { v.event(1501, replace(`"n":1500`, `"n":1501`)) },
		[]string{"events 1280 to 1501: altered: the tree head is the signed one"}},
	{"break an event", func(v vandal) { v.event(300, replace(`"v":1`, `"v":2`)) }, []string{"event 300: the version is not 1 (rule E5)"}},
	{"drop an event inside a segment", func(v vandal) {
		v.segment(300, func(list [][]byte, at int) [][]byte { return append(list[:at], list[at+1:]...) })
	}, []string{"event 300: its hash is not", "event 511: missing"}},
	{"drop a whole tile of events", func(v vandal) { v.exec("delete from segment where first >= 512 and first < 768") }, []string{"events 512 to 767: missing"}},
	{"drop the newest events", func(v vandal) { v.exec("delete from segment where first >= 1280") }, []string{"events 1280 to 1501: missing"}},
	{"drop all events", func(v vandal) { v.exec("delete from segment") }, []string{"events 0 to 1501: missing"}},
	{"swap two events", func(v vandal) {
		v.segment(300, func(list [][]byte, at int) [][]byte { list[at], list[at+7] = list[at+7], list[at]; return list })
	}, []string{"event 300: its hash is not the one in tile 0/1, nor those of 1 more"}},
	{"swap two events of two tiles", func(v vandal) {
		a, b := v.get(100), v.get(900)
		v.event(100, func([]byte) []byte { return b })
		v.event(900, func([]byte) []byte { return a })
	}, []string{"event 100: ", "event 900: "}},
	{"swap two rows", func(v vandal) {
		v.exec("update segment set first = -1 where first = 256")
		v.exec("update segment set first = 256 where first = 512")
		v.exec("update segment set first = 512 where first = -1")
	}, []string{"event 256: its hash is not", "event 512: its hash is not"}},
	{"insert an event", func(v vandal) {
		v.segment(1290, func(list [][]byte, at int) [][]byte {
			return append(list[:at:at], append([][]byte{list[at]}, list[at:]...)...)
		})
	}, []string{"event 1291: its id", "events 1280 to 1501: altered"}},
	{"insert an event into a full row", func(v vandal) {
		v.segment(300, func(list [][]byte, at int) [][]byte { return append(list, list[at]) })
	}, []string{"events 256 to 511: cannot be read: the row says that it holds 257"}},
	{"hide an event behind those that a row counts", func(v vandal) {
		v.segment(300, func(list [][]byte, at int) [][]byte { return append(list, list[at]) })
		v.exec("update segment set count = 256 where first = 256")
	}, []string{"events 256 to 511: cannot be read: it holds more than 256 events"}},
	{"insert a row within another", func(v vandal) {
		v.exec("insert into segment select first + 5, 1, codec, data from segment where first = 256")
	}, []string{"event 261: a second row holds events"}},
	{"insert a row beyond the head", func(v vandal) {
		codec, data, _ := encodeSegment(nil, [][]byte{v.get(1501)})
		v.exec("insert into segment values(1502, 1, ?, ?)", codec, data)
	}, []string{"event 1502: beyond the tree head"}},
	{"insert a row far beyond the head", func(v vandal) {
		codec, data, _ := encodeSegment(nil, [][]byte{v.get(1501)})
		v.exec("insert into segment values(1 << 40, 1, ?, ?)", codec, data)
	}, []string{"events 1502 to 1099511627776: beyond the tree head"}},
	{"record an event again", func(v vandal) { a := v.get(300); v.event(700, func([]byte) []byte { return a }) },
		[]string{"event 700: its id", "event 700: its hash"}},
	{"damage a row", func(v vandal) {
		v.exec("update segment set data = substr(data, 1, 100) where first = 512")
	}, []string{"events 512 to 767: cannot be read"}},
	{"damage the codec of a row", func(v vandal) { v.exec("update segment set codec = 9 where first = 512") },
		[]string{"events 512 to 767: cannot be read: it does not decompress: codec 9"}},

	{"change a blob", func(v vandal) {
		b := v.bytes("select data from blob where id = 40")
		b[len(b)/2] ^= 1
		v.exec("update blob set data = ? where id = 40", b)
	}, []string{"blob 40: its bytes are not those that event 196 refers to"}},
	{"cut a blob off", func(v vandal) { v.exec("update blob set data = x'' where id = 40") }, []string{"blob 40: its bytes"}},
	{"drop a blob", func(v vandal) { v.exec("delete from blob where id = 40") },
		[]string{"blob 40: it is missing, though the key of its scope 2 is there (event 196 refers to it)"}},
	{"swap two blobs", func(v vandal) {
		a, b := v.bytes("select data from blob where id = 40"), v.bytes("select data from blob where id = 41")
		v.exec("update blob set data = ? where id = 40", b)
		v.exec("update blob set data = ? where id = 41", a)
	}, []string{"blob 40: its bytes", "blob 41: its bytes"}},
	{"move a blob to another number", func(v vandal) { v.exec("update blob set id = 5000 where id = 40") },
		[]string{"blob 40: it is missing", "blob 5000: no event refers to it"}},
	{"move a blob to another scope", func(v vandal) { v.exec("update blob set scope = 1 where id = 40") },
		[]string{"blob 40: it is stored under key scope 1, event 196 says 2"}},
	{"insert a blob", func(v vandal) { v.exec("insert into blob select 5000, scope, data from blob where id = 40") },
		[]string{"blob 5000: no event refers to it"}},
	{"insert a blob with a negative number", func(v vandal) { v.exec("insert into blob select -1, scope, data from blob where id = 40") },
		[]string{"blob -1: no event refers to it"}},

	{"change a tile", func(v vandal) {
		b := v.bytes("select data from tile where id = 1")
		b[44*32] ^= 1
		v.exec("update tile set data = ? where id = 1", b)
	}, []string{"event 300: its hash is not the one in tile 0/1; the events add up to the tree head: the tile was altered"}},
	{"cut a tile off", func(v vandal) { v.exec("update tile set data = substr(data, 1, 64) where id = 1") }, []string{"tile 0/1: it cannot be read (events 256 to 511)"}},
	{"drop a tile", func(v vandal) { v.exec("delete from tile where id = 1") }, []string{"tile 0/1: it is missing (events 256 to 511)"}},
	{"swap two tiles", func(v vandal) {
		v.exec("update tile set id = -1 where id = 1")
		v.exec("update tile set id = 1 where id = 2")
		v.exec("update tile set id = 2 where id = -1")
	}, []string{"event 256: its hash is not the one in tile 0/1, nor those of 255 more events up to 511", "event 512: "}},
	{"insert a tile", func(v vandal) { v.exec("insert into tile select 5, data from tile where id = 1") }, []string{"tile 0/5: it should not be there"}},
	{"insert a tile of a higher level", func(v vandal) { v.exec("insert into tile select 1 << 48, data from tile where id = 1") },
		[]string{"tile 1/0: it should not be there"}},

	{"change the tree head's root", func(v vandal) { v.exec("update tree set root = zeroblob(32)") },
		[]string{"tree head: it was altered: the events add up to the signed root of size 1502"}},
	{"shrink the tree head", func(v vandal) { v.exec("update tree set size = 1000") },
		[]string{"tree head: its root is not that of its 1000 events", "events 1000 to 1501: beyond the tree head", "checkpoint of size 1502: the log has only 1000 events: 502 were cut off"}},
	{"grow the tree head", func(v vandal) { v.exec("update tree set size = 2000") }, []string{"events 1502 to 1999: missing"}},
	{"grow the tree head far", func(v vandal) { v.exec("update tree set size = 1 << 60") }, []string{"events 1502 to 1152921504606846975: missing"}},
	{"drop the tree head", func(v vandal) { v.exec("delete from tree") },
		[]string{"events 0 to 1501: beyond the tree head", "checkpoint of size 402: the log has only 0 events"}},

	{"change a checkpoint", func(v vandal) {
		b := v.bytes("select note from checkpoint where size = 902")
		v.exec("update checkpoint set note = ? where size = 902", replace("\n902\n", "\n903\n")(b))
	}, []string{"checkpoint of size 902: the checkpoint is not signed by"}},
	{"take the ML-DSA line off a checkpoint", func(v vandal) {
		lines := strings.SplitAfter(string(v.bytes("select note from checkpoint where size = 902")), "\n")
		v.exec("update checkpoint set note = ? where size = 902", []byte(strings.Join(lines[:len(lines)-2], "")))
	}, []string{"checkpoint of size 902: the checkpoint lacks the ML-DSA-44 signature"}},
	{"swap two checkpoints", func(v vandal) {
		a, b := v.bytes("select note from checkpoint where size = 902"), v.bytes("select note from checkpoint where size = 402")
		v.exec("update checkpoint set note = ? where size = 902", b)
		v.exec("update checkpoint set note = ? where size = 402", a)
	}, []string{"checkpoint of size 402: what is signed has the size 902", "checkpoint of size 902: what is signed has the size 402"}},
	{"insert a checkpoint", func(v vandal) {
		v.exec("insert into checkpoint select 500, time, low, note from checkpoint where size = 402")
	}, []string{"checkpoint of size 500: what is signed has the size 402"}},
	{"drop all checkpoints", func(v vandal) { v.exec("delete from checkpoint") }, []string{"checkpoints: there is none"}},
	{"drop the newest checkpoint", func(v vandal) { v.exec("delete from checkpoint where size = 1502") },
		[]string{"checkpoints: the newest here has the size 902, the one that you kept 1502: it was removed"}},
	{"drop an old checkpoint", func(v vandal) { v.exec("delete from checkpoint where size = 902") },
		[]string{"note: no checkpoint is kept of the hour 2026-11-21T13 (events 402 to 901)"}},

	{"destroy a key and drop its blobs", func(v vandal) {
		v.exec("delete from blob where scope = 2")
		v.exec("delete from scope where id = 2")
	}, []string{"note: 101 references point to content whose key was destroyed"}},
}

func TestVerifyFindsEveryFault(t *testing.T) {
	c, keys, head := sampleLog(t)
	check := func(t *testing.T, dir string) []string {
		r, err := OpenReader(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		report, err := verify.Log(t.Context(), r.Inspect(), keys, verify.LogOptions{Since: head})
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, p := range report.Problems {
			lines = append(lines, p.String())
		}
		for _, n := range report.Notes {
			lines = append(lines, "note: "+n)
		}
		return lines
	}
	if lines := check(t, c.Dir); len(lines) > 0 {
		t.Fatalf("the folder is not whole before it was altered: %q", lines)
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(c.Dir)); err != nil {
				t.Fatal(err)
			}
			conn, err := sqlite.OpenConn(filepath.Join(dir, ledgerFile), sqlite.OpenReadWrite)
			if err != nil {
				t.Fatal(err)
			}
			f.alter(vandal{t, conn})
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			all := strings.Join(check(t, dir), "\n")
			for _, want := range f.want {
				if !strings.Contains("\n"+all, "\n"+want) {
					t.Errorf("expected a line that starts with\n%s\nfound\n%s", want, all)
				}
			}
		})
	}
}

// TestRewrittenHistory is the attack by somebody who can write the folder, knows the format and lacks the signing key:
// everything adds up again, but for what was signed.
func TestRewrittenHistory(t *testing.T) {
	c, keys, head := sampleLog(t)
	conn, err := sqlite.OpenConn(filepath.Join(c.Dir, ledgerFile), sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	v := vandal{t, conn}
	v.event(600, replace(`"n":599`, `"n":0`))
	v.exec("delete from tile")
	var tr tree
	var tiles []fullTile
	for seq := range int64(1502) {
		tiles = tr.append(verify.LeafHash(v.get(seq)), tiles)
	}
	for _, tile := range tiles {
		v.exec("insert into tile values(?, ?)", tileID(tile.level, tile.number), flatten(tile.hashes))
	}
	root := tr.edge.Root()
	v.exec("update tree set root = ?", root[:])
	verifyNow := func(since []byte) verify.Report {
		r, err := OpenReader(c.Dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		report, err := verify.Log(t.Context(), r.Inspect(), keys, verify.LogOptions{Since: since})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	r := verifyNow(nil)
	if len(r.Problems) != 2 || r.Problems[0].Where != "checkpoint of size 902" || r.Problems[1].Where != "checkpoint of size 1502" || r.Checkpoint.Size != 402 {
		t.Errorf("%v", r.Problems)
	}
	// Without the checkpoints that contradict it, only one that was kept elsewhere shows it.
	v.exec("delete from checkpoint where size > 402")
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verifyNow(nil); !r.OK() || r.Unsigned != 1100 {
		t.Errorf("%v, %d unsigned", r.Problems, r.Unsigned)
	}
	if r := verifyNow(head); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].String(), "that you kept: its root is not that of the first 1502 events") {
		t.Errorf("%v", r.Problems)
	}
}

// TestVerifyWhileRunning verifies a folder to which somebody appends all the while.
func TestVerifyWhileRunning(t *testing.T) {
	c := config(t)
	c.Checkpoint = 20 * time.Millisecond
	l := open(t, c)
	app, err := l.Vault().AppScope(t.Context(), "default", "app")
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := l.VerifierKeys()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	appendMany(t, l, 300)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			p, err := l.Send(ctx, fact(i), l.Vault().Seal(app, "request", fmt.Appendf(nil, "%d", i), nil, nil)...)
			if err == nil && i%20 == 0 {
				_, err = p.Wait(ctx)
			}
			if err != nil {
				done <- ctx.Err()
				return
			}
		}
	}()
	for range 6 {
		r, err := OpenReader(c.Dir, "")
		if err != nil {
			t.Fatal(err)
		}
		report, err := verify.Log(t.Context(), r.Inspect(), keys, verify.LogOptions{})
		r.Close()
		if err != nil || !report.OK() {
			t.Fatalf("%v %v", report.Problems, err)
		}
	}
	stop()
	if err := <-done; err == nil {
		t.Fatal("appending stopped early")
	}
}

// BenchmarkVerify is verification of a data folder with everything in it, on one core.
func BenchmarkVerify(b *testing.B) {
	c := config(b)
	l := open(b, c)
	const n = 20_000
	actor := fairlead.Actor{App: fairlead.Facet{Value: "support", Assurance: fairlead.Verified, Method: "virtual-key"},
		User: fairlead.Facet{Value: "u:9b1deb4d3b7d4bad", Assurance: fairlead.Verified, Method: "oidc", Issuer: "https://issuer.example"}}
	var last *Pending
	var err error
	for i := range n {
		f := &fairlead.Fact{Kind: fairlead.KindCallRefused, Actor: actor}
		for k := range 12 {
			f.Attrs = append(f.Attrs, fairlead.Attr{Name: fmt.Sprintf("gen_ai.request.attribute%d", k), Value: fmt.Sprintf("value %d", i*k)})
		}
		if last, err = l.Send(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := last.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	text, _, _ := l.VerifierKeys()
	keys, err := verify.ParseKeys(text)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := l.signHead(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		if r, err := verify.Log(b.Context(), l.Inspect(), keys, verify.LogOptions{}); err != nil || !r.OK() {
			b.Fatal(r.Problems, err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "events/s")
}
