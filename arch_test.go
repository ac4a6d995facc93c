package fairlead_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// maxLines is where a file has to be divided, tests included.
const maxLines = 800

// A ban says why an import is not wanted. It covers the package and everything below it.
type ban struct {
	reason string
	tests  bool // also in test files
}

var bans = map[string]ban{
	"testing":                     {reason: "it registers flags and belongs into test files"},
	"net/http/httptest":           {reason: "it belongs into test files"},
	"unsafe":                      {reason: "input is hostile: memory safety is not ours to give up"},
	"math/rand":                   {reason: "use crypto/rand for secrets and names, math/rand/v2 for jitter"},
	"log":                         {reason: "use log/slog"},
	"io/ioutil":                   {reason: "use io and os"},
	"expvar":                      {reason: "it publishes on the default mux"},
	"net/http/pprof":              {reason: "it publishes on the default mux"},
	"github.com/stretchr/testify": {reason: "use testing and go-cmp", tests: true},
}

// banned returns the ban that covers an import path, if there is one.
func banned(imp string) (ban, bool) {
	if imp == "log/slog" || imp == "math/rand/v2" {
		return ban{}, false
	}
	for p := imp; p != "."; p = path.Dir(p) {
		if b, ok := bans[p]; ok {
			return b, true
		}
	}
	return ban{}, false
}

// TestArchitecture holds the module to the drawing in ARCHITECTURE.md and to the rules of CONTRIBUTING.md that a
// program can check.
func TestArchitecture(t *testing.T) {
	violations, err := checkArchitecture(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// A house is a module as far as it has been read.
type house struct {
	module     string
	rank       map[string]int  // line of the drawing that a package stands on
	packages   map[string]bool // package folders that exist: whether one of the files has a package comment
	violations []string
}

func (h *house) report(format string, args ...any) {
	h.violations = append(h.violations, fmt.Sprintf(format, args...))
}

// checkArchitecture reads the module whose root is fsys and returns every broken rule as a sentence. Modules inside
// the module, testdata and folders that the go command skips are not looked at.
func checkArchitecture(fsys fs.FS) ([]string, error) {
	h := &house{packages: map[string]bool{}}
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(mod), "\n")
	h.module = strings.TrimSpace(strings.TrimPrefix(first, "module "))
	drawing, err := fs.ReadFile(fsys, "ARCHITECTURE.md")
	if err != nil {
		return nil, err
	}
	if h.rank, err = readDrawing(string(drawing)); err != nil {
		return nil, err
	}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(fsys, name) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		return h.file(name, src)
	})
	if err != nil {
		return nil, err
	}
	for p := range h.rank {
		if _, ok := h.packages[p]; !ok && !strings.HasSuffix(p, "/...") {
			h.report("ARCHITECTURE.md: package %s is in the drawing and does not exist", p)
		}
	}
	for p, documented := range h.packages {
		if !documented {
			h.report("%s: package has no comment", p)
		}
		if _, _, ok := h.drawn(p); !ok {
			h.report("%s: package is not in the drawing of ARCHITECTURE.md", p)
		}
	}
	slices.Sort(h.violations)
	return h.violations, nil
}

// readDrawing returns for each package in the "layers" block the line that it stands on, counted from the top.
func readDrawing(doc string) (map[string]int, error) {
	_, rest, ok := strings.Cut(doc, "\n```layers\n")
	block, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		return nil, fmt.Errorf("ARCHITECTURE.md has no closed ```layers block")
	}
	rank := map[string]int{}
	for i, line := range strings.Split(block, "\n") {
		for _, p := range strings.Fields(line) {
			if _, twice := rank[p]; twice {
				return nil, fmt.Errorf("ARCHITECTURE.md draws package %s twice", p)
			}
			rank[p] = i
		}
	}
	return rank, nil
}

// drawn gives the line that a package stands on and what stands for it there: its own name, or that of a folder with
// all that is below it ("bench/..."), whose packages may import each other.
func (h *house) drawn(dir string) (rank int, as string, ok bool) {
	if rank, ok := h.rank[dir]; ok {
		return rank, dir, true
	}
	for p := dir; p != "."; p = path.Dir(p) {
		if rank, ok := h.rank[p+"/..."]; ok {
			return rank, p + "/...", true
		}
	}
	return 0, "", false
}

func skipped(fsys fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	base := path.Base(dir)
	if base[0] == '.' || base[0] == '_' || base == "testdata" || base == "vendor" || base == "node_modules" {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

// file checks one source file.
func (h *house) file(name string, src []byte) error {
	if n := bytes.Count(src, []byte("\n")); n > maxLines {
		h.report("%s: %d lines, the end is %d", name, n, maxLines)
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	dir, isTest := path.Dir(name), strings.HasSuffix(name, "_test.go")
	if !isTest {
		h.packages[dir] = h.packages[dir] || f.Doc != nil
		h.comments(name, f)
	}
	for _, s := range f.Imports {
		imp, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			return err
		}
		// A package that exists for tests, by the rule of its name, may import what tests may.
		if b, ok := banned(imp); ok && (b.tests || !isTest && !strings.HasSuffix(dir, "test")) {
			h.report("%s: may not import %s: %s", name, imp, b.reason)
		}
		if !isTest {
			h.layer(name, dir, imp)
		}
	}
	return nil
}

// layer checks one import of a production file against the drawing.
func (h *house) layer(name, dir, imp string) {
	to, ours := strings.CutPrefix(imp, h.module+"/")
	if imp == h.module {
		to, ours = ".", true
	}
	host, _, _ := strings.Cut(imp, "/")
	if dir == "." && (ours || strings.Contains(host, ".")) {
		h.report("%s: the root package imports the standard library only, not %s", name, imp)
		return
	}
	if !ours {
		return
	}
	from, room, drawn := h.drawn(dir)
	if !drawn {
		return // reported once for the package
	}
	if rank, other, ok := h.drawn(to); ok && rank <= from && !(other == room && strings.HasSuffix(room, "/...")) {
		h.report("%s: %s may not import %s: it is not on a lower line of the drawing", name, dir, to)
	}
}

// comments checks that each exported name at the top level has a comment: its own or that of its group.
func (h *house) comments(name string, f *ast.File) {
	undocumented := func(id *ast.Ident) {
		if id.IsExported() {
			h.report("%s: %s has no comment", name, id.Name)
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Doc == nil {
				undocumented(d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Doc == nil && d.Doc == nil {
						undocumented(s.Name)
					}
				case *ast.ValueSpec:
					if s.Doc == nil && s.Comment == nil && d.Doc == nil {
						for _, id := range s.Names {
							undocumented(id)
						}
					}
				}
			}
		}
	}
}

// TestArchitectureRules plants one violation of each rule in a small module and expects exactly that one to be found.
func TestArchitectureRules(t *testing.T) {
	const low = "// Package low is low.\npackage low\n"
	const drawing = "# Architecture\n```layers\ntools/...\nhigh side\nlow\n.\n```\n"
	tests := []struct {
		name    string
		files   map[string]string // in addition to, or in place of, the clean module's
		without string
		want    []string
	}{
		{name: "clean"},
		{
			name:  "import of a higher line",
			files: map[string]string{"low/b.go": "package low\nimport _ \"example.test/m/high\"\n"},
			want:  []string{"low/b.go: low may not import high: it is not on a lower line of the drawing"},
		},
		{
			name:  "import of the same line",
			files: map[string]string{"high/b.go": "package high\nimport _ \"example.test/m/side\"\n"},
			want:  []string{"high/b.go: high may not import side: it is not on a lower line of the drawing"},
		},
		{
			name:  "a test may import upwards",
			files: map[string]string{"low/b_test.go": "package low_test\nimport _ \"example.test/m/high\"\n"},
		},
		{
			name: "a folder drawn as a whole",
			files: map[string]string{"tools/a/a.go": "// Package a is a tool.\npackage a\nimport _ \"example.test/m/tools/b\"\n",
				"tools/b/b.go": "// Package b is a tool.\npackage b\nimport _ \"example.test/m/high\"\n", "low/b.go": "package low\nimport _ \"example.test/m/tools/b\"\n"},
			want: []string{"low/b.go: low may not import tools/b: it is not on a lower line of the drawing"},
		},
		{
			name:  "package not drawn",
			files: map[string]string{"new/n.go": "// Package new is new.\npackage new\n"},
			want:  []string{"new: package is not in the drawing of ARCHITECTURE.md"},
		},
		{
			name:    "drawn package missing",
			without: "side/s.go",
			want:    []string{"ARCHITECTURE.md: package side is in the drawing and does not exist"},
		},
		{
			name:  "package without comment",
			files: map[string]string{"low/l.go": "package low\n"},
			want:  []string{"low: package has no comment"},
		},
		{
			name: "exported names without comment",
			files: map[string]string{"low/l.go": low + "func F() {}\ntype T int\nvar V, w int\nconst (\nA = 1\n// B is.\nB = 2\nC = 3 // is too\n)\n" +
				"func (T) Method() {}\nfunc f() {}\n"},
			want: []string{"low/l.go: A has no comment", "low/l.go: F has no comment", "low/l.go: T has no comment", "low/l.go: V has no comment"},
		},
		{
			name:  "long file",
			files: map[string]string{"low/l.go": low + strings.Repeat("\n", 799)},
			want:  []string{"low/l.go: 801 lines, the end is 800"},
		},
		{
			name:  "long test",
			files: map[string]string{"low/l_test.go": "package low\n" + strings.Repeat("\n", 800)},
			want:  []string{"low/l_test.go: 801 lines, the end is 800"},
		},
		{
			name:  "banned in production code",
			files: map[string]string{"low/b.go": "package low\nimport (\n_ \"testing/iotest\"\n_ \"unsafe\"\n_ \"log/slog\"\n_ \"math/rand/v2\"\n)\n"},
			want: []string{
				"low/b.go: may not import testing/iotest: it registers flags and belongs into test files",
				"low/b.go: may not import unsafe: input is hostile: memory safety is not ours to give up",
			},
		},
		{
			name:  "not banned in tests",
			files: map[string]string{"low/b_test.go": "package low\nimport (\n_ \"testing\"\n_ \"math/rand\"\n)\n"},
		},
		{
			name:  "banned in tests too",
			files: map[string]string{"low/b_test.go": "package low\nimport _ \"github.com/stretchr/testify/require\"\n"},
			want:  []string{"low/b_test.go: may not import github.com/stretchr/testify/require: use testing and go-cmp"},
		},
		{
			name:  "root imports a module",
			files: map[string]string{"m.go": "// Package m is the root.\npackage m\nimport (\n_ \"golang.org/x/mod/semver\"\n_ \"example.test/m/low\"\n_ \"net/http\"\n)\n"},
			want: []string{
				"m.go: the root package imports the standard library only, not example.test/m/low",
				"m.go: the root package imports the standard library only, not golang.org/x/mod/semver",
			},
		},
		{
			name: "what the go command skips",
			files: map[string]string{
				"tools/go.mod": "module tools\n", "tools/t.go": "package main\nimport _ \"unsafe\"\n",
				"low/testdata/t.go": "package t\n", "_old/o.go": "package old\n", ".x/o.go": "package x\n",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, src := range map[string]string{
				"go.mod": "module example.test/m\n\ngo 1.26\n", "ARCHITECTURE.md": drawing,
				"m.go":      "// Package m is the root.\npackage m\nimport _ \"fmt\"\n",
				"low/l.go":  low + "import _ \"example.test/m\"\n",
				"high/h.go": "// Package high is high.\npackage high\nimport _ \"example.test/m/low\"\n",
				"side/s.go": "// Package side is at the side.\npackage side\n",
			} {
				fsys[name] = &fstest.MapFile{Data: []byte(src)}
			}
			for name, src := range tt.files {
				fsys[name] = &fstest.MapFile{Data: []byte(src)}
			}
			delete(fsys, tt.without)
			got, err := checkArchitecture(fsys)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("found\n\t%s\nexpected\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
		})
	}
}

// TestDrawing shows that a drawing that cannot be checked is an error and not an empty rule.
func TestDrawing(t *testing.T) {
	for _, doc := range []string{"# no block\n", "\n```layers\na\n", "\n```layers\na b\nc a\n```\n"} {
		if rank, err := readDrawing(doc); err == nil {
			t.Errorf("readDrawing(%q) = %v, expected an error", doc, rank)
		}
	}
}
