package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A part is a file of the data folder, or a table or index of one of its databases.
type part struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// folder lists all files below dir, the largest first, and what they add up to.
func folder(dir string) (files []part, total int64, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		files = append(files, part{rel, info.Size()})
		total += info.Size()
		return err
	})
	bySize(files)
	return files, total, err
}

// tables lists the pages of each table and index of a database, in bytes.
func tables(file string) (parts []part, err error) {
	c, err := sqlite.OpenConn(file, sqlite.OpenReadOnly)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", filepath.Base(file), err)
	}
	defer c.Close()
	err = sqlitex.Execute(c, "select name, sum(pgsize) from dbstat group by name", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			parts = append(parts, part{filepath.Base(file) + ": " + s.ColumnText(0), s.ColumnInt64(1)})
			return nil
		}})
	if err != nil {
		return nil, fmt.Errorf("asking %s for its pages: %w", filepath.Base(file), err)
	}
	bySize(parts)
	return parts, nil
}

func bySize(parts []part) {
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(b.Bytes, a.Bytes) })
}
