package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/provenance"
)

// A folder is a data folder opened for reading, beside a running server or without one.
type folder struct {
	*ledger.Reader
	views *ledger.Views
}

// openFolder opens the data folder for a command. With needKeys the content has to be readable.
func openFolder(ctx context.Context, env *Env, data, keys string, needKeys bool) (*folder, error) {
	dir, err := env.dataDir(data)
	if err != nil {
		return nil, err
	}
	keysDir, err := env.keysDir(keys, dir)
	if err != nil && needKeys {
		return nil, err
	}
	r, err := ledger.OpenReader(dir, keysDir)
	if err != nil {
		return nil, readerError(err)
	}
	f := &folder{Reader: r}
	if f.views, err = ledger.OpenViews(r); err == nil {
		err = f.views.CatchUp(ctx, nil)
	}
	if err != nil {
		f.close()
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, unusable(fmt.Errorf("reading the ledger: %w", err), "run fairlead verify log: it says what is wrong and where")
	}
	return f, nil
}

// readerError adds to an error of ledger.OpenReader what to do about it.
func readerError(err error) error {
	if errors.Is(err, ledger.ErrNoLedger) {
		return unusable(err, "name the folder with --data DIR; \"fairlead demo\" and \"fairlead serve\" print theirs")
	}
	return unusable(err)
}

func (f *folder) close() {
	if f.views != nil {
		f.views.Close()
	}
	f.Reader.Close()
}

func (f *folder) source() provenance.Source {
	return provenance.Source{Reader: f.Reader, Views: f.views}
}

// find resolves what a person types: an id, or a number with or without #.
func (f *folder) find(ctx context.Context, ref string) (seq int64, err error) {
	if n, err := strconv.ParseInt(strings.TrimPrefix(ref, "#"), 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	id, err := fairlead.ParseID(ref)
	if err != nil {
		return 0, &Error{Err: err, Code: exitUsage, Hints: []string{"an id is in the header Fairlead-Decision-Id of every answer, and in fairlead tail; #N names event N"}}
	}
	return f.views.Find(ctx, id)
}

// clock is how times are shown to people.
func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }
