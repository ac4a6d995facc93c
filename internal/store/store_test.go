package store

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

var schema = []string{"create table t(n integer primary key) strict", "alter table t add column s text"}

func count(t *testing.T, db *DB) (n int) {
	t.Helper()
	err := db.Read(context.Background(), func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select count(*) from t", &sqlitex.ExecOptions{
			ResultFunc: func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil }})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func insert(n int) func(*sqlite.Conn) error {
	return func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "insert into t(n) values(?)", &sqlitex.ExecOptions{Args: []any{n}})
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := Open(path, Config{Migrations: schema[:1]})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Write(insert(1)); err != nil {
		t.Fatal(err)
	}
	db.Close()
	db, err = Open(path, Config{Migrations: schema})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows after a migration, want 1", n)
	}
	db.Close()
	for _, readOnly := range []bool{false, true} {
		if _, err := Open(path, Config{Migrations: schema[:1], ReadOnly: readOnly}); !errors.Is(err, ErrNewer) {
			t.Errorf("a database of a newer version was opened (read only: %v): %v", readOnly, err)
		}
	}
	if db, err = Open(path, Config{Migrations: append(schema[:2:2], "create table broken(")}); err == nil {
		db.Close()
		t.Error("a broken migration succeeded")
	}
	if db, err = Open(path, Config{Migrations: schema}); err != nil {
		t.Fatalf("a migration that failed left its mark: %v", err)
	}
	db.Close()
}

// TestFaults makes a commit fail in both ways and checks what is on disk afterwards.
func TestFaults(t *testing.T) {
	for point, want := range map[string]int{"before": 0, "after": 1} {
		fail := true
		db, err := Open(filepath.Join(t.TempDir(), "x.db"), Config{Migrations: schema, Fault: func(p string) error {
			if fail && p == point {
				return errors.New("injected")
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Write(insert(1)); err == nil {
			t.Fatalf("%s: the fault did not show", point)
		}
		fail = false
		if err := db.Reset(); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db); n != want {
			t.Errorf("failed %s the commit: %d rows, want %d", point, n, want)
		}
		if err := db.Write(insert(2)); err != nil {
			t.Errorf("failed %s the commit: the next one: %v", point, err)
		}
	}
}

func TestReadersCannotWrite(t *testing.T) {
	db, err := Open(filepath.Join(t.TempDir(), "x.db"), Config{Migrations: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Read(context.Background(), insert(1)); err == nil {
		t.Error("a reading connection wrote")
	}
}
