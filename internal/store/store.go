// Package store opens, migrates and transacts on the databases in a data folder. It knows SQL engines and nothing of
// what is kept in them. Today there is one engine, SQLite in pure Go, used through its low-level API; a second one will
// pass the same conformance suite as the ledger does on this one.
//
// Promises: a committed transaction survives kill -9 and, as far as the disk honours a sync, a power cut
// (synchronous=FULL). A database of a newer version is refused, never touched. Readers never wait for the writer.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Config says how to open a database.
type Config struct {
	// Migrations are SQL scripts; the database's version is the number of those that it has seen. They are only ever
	// appended to.
	Migrations []string
	// ReadOnly opens an existing database for reading.
	ReadOnly bool
	// Readers is how many connections may read at a time; 4 if zero.
	Readers int
	// Lax asks for durability without a sync on every commit. For what can be derived again, never for the ledger.
	Lax bool
	// Fault, if set, is called around every commit of [DB.Write] with "before" and "after". An error from it makes the
	// commit fail before it happened or after: the two ways in which storage lies. For tests.
	Fault func(point string) error
}

// A DB is an open database: one connection that writes, some that read. Write must not be called concurrently.
type DB struct {
	path  string
	conf  Config
	write *sqlite.Conn
	pool  *sqlitex.Pool
}

// ErrNewer is wrapped in the error for a database that a newer version of the program has written.
var ErrNewer = errors.New("the database was written by a newer version of fairlead")

// Open opens the database at path, creating and migrating it unless it is opened for reading only.
func Open(path string, c Config) (*DB, error) {
	if c.Readers == 0 {
		c.Readers = 4
	}
	db := &DB{path: path, conf: c}
	if c.ReadOnly {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
	} else if err := db.openWriter(); err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	pool, err := sqlitex.NewPool(path, sqlitex.PoolOptions{
		// A reader opens read-write, because a reader of a write-ahead log takes part in its bookkeeping; query_only
		// keeps it from writing.
		Flags:    sqlite.OpenReadWrite | sqlite.OpenURI,
		PoolSize: c.Readers,
		PrepareConn: func(conn *sqlite.Conn) error {
			return pragmas(conn, "busy_timeout=10000", "query_only=on", "cache_size=-8192")
		},
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db.pool = pool
	if c.ReadOnly {
		if err := db.Read(context.Background(), db.checkVersion); err != nil {
			db.Close()
			return nil, fmt.Errorf("opening %s: %w", path, err)
		}
	}
	return db, nil
}

func pragmas(conn *sqlite.Conn, list ...string) error {
	for _, p := range list {
		if err := sqlitex.ExecuteTransient(conn, "pragma "+p, nil); err != nil {
			return fmt.Errorf("setting %s: %w", p, err)
		}
	}
	return nil
}

func (db *DB) openWriter() error {
	conn, err := sqlite.OpenConn(db.path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		return err
	}
	conn.SetInterrupt(nil)
	sync := "synchronous=full"
	if db.conf.Lax {
		sync = "synchronous=normal"
	}
	err = pragmas(conn, "busy_timeout=10000", "journal_mode=wal", sync, "cache_size=-16384",
		"journal_size_limit=67108864", "wal_autocheckpoint=0")
	if err == nil {
		err = db.migrate(conn)
	}
	if err != nil {
		conn.Close()
		return err
	}
	db.write = conn
	return nil
}

func version(conn *sqlite.Conn) (int, error) {
	v := 0
	err := sqlitex.ExecuteTransient(conn, "pragma user_version", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error { v = s.ColumnInt(0); return nil }})
	return v, err
}

func (db *DB) checkVersion(conn *sqlite.Conn) error {
	v, err := version(conn)
	if err != nil {
		return err
	}
	if v > len(db.conf.Migrations) {
		return fmt.Errorf("%w: its version is %d, this program knows up to %d", ErrNewer, v, len(db.conf.Migrations))
	}
	return nil
}

func (db *DB) migrate(conn *sqlite.Conn) (err error) {
	if err := db.checkVersion(conn); err != nil {
		return err
	}
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	v, err := version(conn)
	if err != nil {
		return err
	}
	for i := v; i < len(db.conf.Migrations); i++ {
		if err := sqlitex.ExecuteScript(conn, db.conf.Migrations[i], nil); err != nil {
			return fmt.Errorf("migrating to version %d: %w", i+1, err)
		}
	}
	if v == len(db.conf.Migrations) {
		return nil
	}
	return sqlitex.ExecuteTransient(conn, fmt.Sprintf("pragma user_version=%d", len(db.conf.Migrations)), nil)
}

// Write runs fn in a transaction and commits it. When it returns nil the changes are durable; when it returns an error
// they may, rarely, be durable all the same: call [DB.Reset] and look.
func (db *DB) Write(fn func(*sqlite.Conn) error) (err error) {
	begin := db.write.Prep("begin immediate")
	if _, err := begin.Step(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	begin.Reset()
	defer func() {
		if err != nil && !db.write.AutocommitEnabled() {
			// A rollback that fails leaves the connection to Reset.
			_ = sqlitex.ExecuteTransient(db.write, "rollback", nil)
		}
	}()
	if err := fn(db.write); err != nil {
		return err
	}
	if db.conf.Fault != nil {
		if err := db.conf.Fault("before"); err != nil {
			return err
		}
	}
	commit := db.write.Prep("commit")
	if _, err := commit.Step(); err != nil {
		commit.Reset()
		return fmt.Errorf("committing: %w", err)
	}
	commit.Reset()
	if db.conf.Fault != nil {
		return db.conf.Fault("after")
	}
	return nil
}

// Reset replaces the writing connection, after an error that leaves unclear what it holds.
func (db *DB) Reset() error {
	if db.write != nil {
		// The connection may be beyond closing cleanly; a new one is all that is wanted.
		_ = db.write.Close()
		db.write = nil
	}
	if err := db.openWriter(); err != nil {
		return fmt.Errorf("reopening %s: %w", db.path, err)
	}
	return nil
}

// Writer is the writing connection, for prepared statements inside [DB.Write].
func (db *DB) Writer() *sqlite.Conn { return db.write }

// Read runs fn on a reading connection.
func (db *DB) Read(ctx context.Context, fn func(*sqlite.Conn) error) error {
	conn, err := db.pool.Take(ctx)
	if err != nil {
		return fmt.Errorf("taking a connection to %s: %w", db.path, err)
	}
	defer db.pool.Put(conn)
	return fn(conn)
}

// Checkpoint moves committed pages from the write-ahead log into the database, as far as readers allow.
func (db *DB) Checkpoint(ctx context.Context) error {
	conn, err := sqlite.OpenConn(db.path, sqlite.OpenReadWrite)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetBusyTimeout(time.Second)
	conn.SetInterrupt(ctx.Done())
	return sqlitex.ExecuteTransient(conn, "pragma wal_checkpoint(passive)", nil)
}

// Close closes all connections. On the way the write-ahead log is merged into the database.
func (db *DB) Close() error {
	var errs []error
	if db.pool != nil {
		errs = append(errs, db.pool.Close())
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
		db.write = nil
	}
	return errors.Join(errs...)
}
