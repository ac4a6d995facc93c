package verify

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"golang.org/x/mod/sumdb/tlog"
)

// maxLevels is how many levels of tiles there can be.
const maxLevels = 7

// treeCheck grows two trees side by side: one from the events and one from the stored tiles. Where they differ, the one
// whose root is the tree head's tells which of the two was altered.
type treeCheck struct {
	size   int64 // leaves so far, those of the unfinished tile included
	leaves [TileWidth]tlog.Hash
	have   [TileWidth]bool // false for a leaf whose event is missing
	lost   bool            // leaves are missing that no tile holds: there are no roots from here on

	fromEvents, fromTiles Frontier
	growing               [maxLevels][]pair // for level l, the children of its unfinished tile
	mark                  int               // the next checkpoint to compare
	differ                []int             // problems about a tile that differs from its events
}

// A pair is the root of a subtree, from events and from stored tiles.
type pair struct{ events, tiles tlog.Hash }

// A mark is a root that the tree must have at a size.
type mark struct {
	size  int64
	root  tlog.Hash
	where string
	cp    *Checkpoint // nil for the one that was kept elsewhere
	good  bool
}

func tileName(level int, n int64) string { return fmt.Sprintf("tile %d/%d", level, n) }

// tileRange says which events stand under a tile.
func tileRange(level int, n int64) string {
	w := int64(1) << (TileHeight * (level + 1))
	return eventRange(n*w, (n+1)*w)
}

// leaf takes the leaf of the next event.
func (l *logCheck) leaf(h tlog.Hash) error {
	t := &l.tree
	t.leaves[t.size%TileWidth], t.have[t.size%TileWidth] = h, true
	if t.size++; t.size%TileWidth == 0 || t.size == l.r.Size {
		return l.flush()
	}
	return nil
}

// skip takes missing events from the one number to before the other. Tiles that would be lost as a whole are not looked
// at one by one: what a hostile tree head claims costs nothing.
func (l *logCheck) skip(from, to int64) error {
	t := &l.tree
	l.unread += to - from
	for t.size < to {
		if t.size%TileWidth == 0 && to-t.size >= TileWidth && t.lost {
			t.size = to &^ (TileWidth - 1)
			continue
		}
		t.have[t.size%TileWidth] = false
		if t.size++; t.size%TileWidth == 0 || t.size == l.r.Size {
			if err := l.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush checks the tile that t.size has just filled, or the unfinished one at the end.
func (l *logCheck) flush() error {
	t := &l.tree
	w := (t.size-1)%TileWidth + 1
	first := t.size - w
	var stored []tlog.Hash
	if w == TileWidth {
		var err error
		if stored, err = l.stored(0, first/TileWidth); err != nil {
			return err
		}
	}
	if stored != nil {
		l.compare(stored, first)
	}
	for i := range w {
		if t.have[i] {
			continue
		}
		if stored == nil {
			t.lost = true
			break
		}
		t.leaves[i] = stored[i]
	}
	if t.lost {
		return nil
	}
	l.reach(first, t.leaves[:w])
	if w < TileWidth {
		for _, h := range t.leaves[:w] {
			t.fromEvents.Append(h)
			t.fromTiles.Append(h)
		}
		return nil
	}
	p := pair{events: Subtree(t.leaves[:])}
	if p.tiles = p.events; stored != nil {
		p.tiles = Subtree(stored)
	}
	t.fromEvents.AppendSubtree(TileHeight, p.events)
	t.fromTiles.AppendSubtree(TileHeight, p.tiles)
	return l.upper(p)
}

// compare reports the first leaf of a stored tile that is not that of its event.
func (l *logCheck) compare(stored []tlog.Hash, first int64) {
	t := &l.tree
	at, n := -1, 0
	for i, h := range stored {
		if t.have[i] && h != t.leaves[i] {
			if n++; at < 0 {
				at = i
			}
		}
	}
	if at < 0 {
		return
	}
	more := ""
	if n > 1 {
		more = fmt.Sprintf(", nor those of %d more events up to %d", n-1, first+TileWidth-1)
	}
	if len(l.r.Problems) < maxProblems {
		t.differ = append(t.differ, len(l.r.Problems))
	}
	l.r.problem(eventRange(first+int64(at), first+int64(at)+1), "its hash is not the one in %s%s", tileName(0, first/TileWidth), more)
}

// stored reads a complete tile and reports one that is missing or damaged as a problem.
func (l *logCheck) stored(level int, n int64) ([]tlog.Hash, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	hashes, err := l.src.StoredTile(l.ctx, level, n)
	switch {
	case err != nil:
		l.r.problem(tileName(level, n), "it cannot be read (%s): %v", tileRange(level, n), err)
		return nil, nil
	case hashes == nil:
		l.r.problem(tileName(level, n), "it is missing (%s)", tileRange(level, n))
		return nil, nil
	case len(hashes) != TileWidth:
		l.r.problem(tileName(level, n), "it has %d hashes, not %d (%s)", len(hashes), TileWidth, tileRange(level, n))
		return nil, nil
	}
	l.r.Tiles++
	return hashes, nil
}

// reach compares the roots that checkpoints name within the leaves from number first on.
func (l *logCheck) reach(first int64, leaves []tlog.Hash) {
	t := &l.tree
	for ; t.mark < len(l.marks) && l.marks[t.mark].size <= first+int64(len(leaves)); t.mark++ {
		m := &l.marks[t.mark]
		if m.size < first || m.size == first && first > 0 {
			continue // cannot be: it was compared with the tile before
		}
		f := t.fromEvents
		for _, h := range leaves[:m.size-first] {
			f.Append(h)
		}
		m.good = f.Root() == m.root
	}
}

// upper takes the root of a complete tile of leaves and checks the tiles above that it completes.
func (l *logCheck) upper(p pair) error {
	t := &l.tree
	for level := 1; level < maxLevels; level++ {
		t.growing[level] = append(t.growing[level], p)
		if len(t.growing[level]) < TileWidth {
			return nil
		}
		var err error
		if p, err = l.upperTile(level, t.size>>(TileHeight*(level+1))-1, t.growing[level]); err != nil {
			return err
		}
		t.growing[level] = t.growing[level][:0]
	}
	return nil
}

// upperTile compares a stored tile with its children. One that agrees with the tiles below it is as it was, even if
// those differ from the events: that is reported already.
func (l *logCheck) upperTile(level int, n int64, children []pair) (pair, error) {
	stored, err := l.stored(level, n)
	if err != nil {
		return pair{}, err
	}
	var events, tiles [TileWidth]tlog.Hash
	wrong := -1
	for i, c := range children {
		events[i], tiles[i] = c.events, c.tiles
		if stored != nil {
			if wrong < 0 && stored[i] != c.events && stored[i] != c.tiles {
				wrong = i
			}
			tiles[i] = stored[i]
		}
	}
	if wrong >= 0 {
		l.r.problem(tileName(level, n), "its hash %d is not the root of %s (%s)", wrong,
			tileName(level-1, n*TileWidth+int64(wrong)), tileRange(level-1, n*TileWidth+int64(wrong)))
	}
	return pair{Subtree(events[:]), Subtree(tiles[:])}, nil
}

// extraTiles reports stored tiles that the events do not fill.
func (l *logCheck) extraTiles() error {
	var list []pos
	n := 0
	err := l.src.Tiles(l.ctx, func(level int, number int64) error {
		if level < 0 || level >= maxLevels || number < 0 || number >= l.r.Size>>(TileHeight*(level+1)) {
			if n++; len(list) < maxProblems {
				list = append(list, pos{level, number})
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing the tiles: %w", err)
	}
	if n == 0 {
		return nil
	}
	size, _, err := l.src.Head(l.ctx) // the log may have grown meanwhile
	if err != nil {
		return fmt.Errorf("reading the tree head: %w", err)
	}
	for _, p := range list {
		if p.level < 0 || p.level >= maxLevels || p.n < 0 || p.n >= size>>(TileHeight*(p.level+1)) {
			l.r.problem(tileName(p.level, p.n), "it should not be there: there are not that many events")
		}
	}
	return nil
}

type pos struct {
	level int
	n     int64
}

// checkpoints reads and verifies all kept checkpoints, and the one that was kept elsewhere. Their roots are compared
// when the tree reaches them.
func (l *logCheck) checkpoints() error {
	err := l.src.Checkpoints(l.ctx, func(size int64, signed []byte) error {
		l.r.Checkpoints++
		where := fmt.Sprintf("checkpoint of size %d", size)
		c, err := l.keys.OpenCheckpoint(signed)
		if err != nil {
			l.r.problem(where, "%v", err)
		} else if c.Size != size {
			l.r.problem(where, "what is signed has the size %d", c.Size)
		} else {
			l.marks = append(l.marks, mark{size: size, root: c.Root, where: where, cp: &c})
		}
		return l.ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("reading the checkpoints: %w", err)
	}
	if l.o.Since != nil {
		c, err := l.keys.OpenCheckpoint(l.o.Since)
		if err != nil {
			return fmt.Errorf("the checkpoint that you kept: %w", err)
		}
		l.marks = append(l.marks, mark{size: c.Size, root: c.Root, where: fmt.Sprintf("the checkpoint of size %d that you kept", c.Size)})
	}
	slices.SortStableFunc(l.marks, func(a, b mark) int { return cmp.Compare(a.size, b.size) })
	if l.r.Size == 0 {
		l.reach(0, nil)
	}
	return nil
}

// roots judges tree head and checkpoints once the tree is whole.
func (l *logCheck) roots() {
	t := &l.tree
	rootE, rootT := t.fromEvents.Root(), t.fromTiles.Root()
	verdict := ""
	switch {
	case t.lost:
		l.r.note("events are missing that no tile holds: roots behind them cannot be computed")
	case rootE == l.r.Root && rootT != l.r.Root:
		verdict = "the events add up to the tree head: the tile was altered"
	case rootE != l.r.Root && rootT == l.r.Root:
		verdict = "the tiles add up to the tree head: the event was altered"
	case rootE != l.r.Root:
		l.wrongHead(rootE)
	}
	for _, i := range t.differ {
		if verdict != "" {
			l.r.Problems[i].What += "; " + verdict
		}
	}
	newest, kept := int64(0), int64(-1)
	for i := range l.marks {
		m := &l.marks[i]
		switch {
		case m.size > l.r.Size:
			l.beyond(m)
		case i >= t.mark:
			l.r.note("%s: its root could not be computed", m.where)
		case !m.good:
			l.r.problem(m.where, "its root is not that of the first %d events", m.size)
		case m.cp != nil:
			l.r.Checkpoint, newest = m.cp, m.size
		}
		if m.cp == nil && m.good {
			kept = m.size
		}
	}
	l.r.Unsigned = l.r.Size - newest
	switch {
	case l.r.Checkpoint == nil && l.r.Size > 0 && l.r.Checkpoints == 0:
		l.r.problem("checkpoints", "there is none: nothing shows that these %d events are those that were recorded", l.r.Size)
	case kept > newest && kept <= l.r.Size:
		l.r.problem("checkpoints", "the newest here has the size %d, the one that you kept %d: it was removed. (If the process died while it signed, a start puts it back.)", newest, kept)
	case l.r.Unsigned > 0:
		l.r.note("the newest %d events stand under no checkpoint yet", l.r.Unsigned)
	}
	l.quietHours()
}

// wrongHead reports a tree head that neither the events nor the tiles add up to. Where a checkpoint of that size exists
// it tells whether the head or an event was altered.
func (l *logCheck) wrongHead(root tlog.Hash) {
	const where = "tree head"
	signed := false
	for i := range l.marks {
		m := &l.marks[i]
		if m.size == l.r.Size && m.root == root {
			l.r.problem(where, "it was altered: the events add up to the signed root of size %d, and not to it", m.size)
			return
		}
		signed = signed || m.size == l.r.Size && m.root == l.r.Root
	}
	last := l.r.Size - l.r.Size%TileWidth
	switch {
	case len(l.tree.differ) > 0 || last == l.r.Size:
		l.r.problem(where, "its root is not that of its %d events", l.r.Size)
	case signed:
		l.r.problem(eventRange(last, l.r.Size), "altered: the tree head is the signed one, and they do not add up to it")
	default:
		l.r.problem(where, "its root is not that of its %d events: it was altered, or one of %s", l.r.Size, eventRange(last, l.r.Size))
	}
}

// beyond handles a checkpoint of more events than the head had when verification started.
func (l *logCheck) beyond(m *mark) {
	size, _, err := l.src.Head(l.ctx)
	switch {
	case err != nil:
		l.r.note("%s: %v", m.where, err)
	case m.size > size:
		l.r.problem(m.where, "the log has only %d events: %d were cut off", size, m.size-size)
	default:
		l.r.note("%s: it was made during verification", m.where)
	}
}

// An hour is where the events of one hour, by their clock, start.
type hour struct {
	name  string
	first int64
}

// quietHours notes hours of which no checkpoint is kept: a running server keeps the first and the last of each.
func (l *logCheck) quietHours() {
	for i, h := range l.hours[:max(len(l.hours)-1, 0)] {
		end := l.hours[i+1].first
		at := sort.Search(len(l.marks), func(k int) bool { return l.marks[k].size > h.first })
		if at == len(l.marks) || l.marks[at].size > end {
			l.r.note("no checkpoint is kept of the hour %s (%s): one was removed, or the process died before it signed", h.name, eventRange(h.first, end))
		}
	}
}
