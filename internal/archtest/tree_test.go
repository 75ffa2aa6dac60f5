package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "parley/"

// source is one Go file of the repository.
type source struct {
	path string // from the root, with slashes
	dir  string
	test bool
	ast  *ast.File
}

var fset = token.NewFileSet()

// tree parses every Go file of the repository, once.
var tree = sync.OnceValues(func() ([]source, error) {
	var files []source
	err := walk(func(p string) error {
		if path.Ext(p) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(fset, root(p), nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, source{p, path.Dir(p), strings.HasSuffix(p, "_test.go"), f})
		return nil
	})
	return files, err
})

func sources(t *testing.T) []source {
	t.Helper()
	files, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// walk visits every file that belongs to the repository.
func walk(visit func(path string) error) error {
	return filepath.WalkDir(root("."), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == "node_modules" || name == "testdata" || name == "bin" || strings.HasSuffix(name, "-data") ||
			len(name) > 1 && name[0] == '.' && name != ".." && name != ".ci") && p != root(".") {
			return filepath.SkipDir
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(root("."), p)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel))
	})
}

// root is the file system path of a path in the repository.
func root(p string) string { return filepath.Join("..", "..", filepath.FromSlash(p)) }

func read(t *testing.T, p string) string {
	t.Helper()
	b, err := os.ReadFile(root(p))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// packages lists the directories that hold Go code other than tests, and those with tests only.
func packages(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, f := range sources(t) {
		dirs = append(dirs, f.dir)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// name is what file calls an imported package, "" if it does not import it.
func (f source) name(importPath string) string {
	for _, im := range f.ast.Imports {
		if strings.Trim(im.Path.Value, `"`) != importPath {
			continue
		}
		if im.Name != nil {
			return im.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// calls visits every call pkg.fn of an imported package.
func (f source) calls(importPath, fn string, visit func(ast.Node)) {
	pkg := f.name(importPath)
	if pkg == "" {
		return
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && selects(call.Fun, pkg, fn) {
			visit(n)
		}
		return true
	})
}

func selects(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}

func where(n ast.Node) string {
	p := fset.Position(n.Pos())
	rel, err := filepath.Rel(root("."), p.Filename)
	if err != nil {
		rel = p.Filename
	}
	p.Filename = filepath.ToSlash(rel)
	p.Column = 0
	return p.String()
}

// isSuite reports whether dir holds a contract suite or another helper of tests.
func isSuite(dir string) bool {
	return strings.HasSuffix(dir, "test") || strings.Contains(dir, "test/")
}
