package policy

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// flatten rewrites context.GROUP.NAME in a condition to one attribute of the context, named "GROUP.NAME", so that no records have
// to be made within the context. It reports whether it could: not when n uses a record as a whole.
func flatten(n ast.IsNode) (ast.IsNode, bool) {
	f := flattener{ok: true}
	n = f.node(n)
	return n, f.ok
}

type flattener struct{ ok bool }

func (f *flattener) pair(b ast.BinaryNode) ast.BinaryNode {
	return ast.BinaryNode{Left: f.node(b.Left), Right: f.node(b.Right)}
}

func (f *flattener) one(u ast.UnaryNode) ast.UnaryNode { return ast.UnaryNode{Arg: f.node(u.Arg)} }

func (f *flattener) list(nodes []ast.IsNode) []ast.IsNode {
	out := make([]ast.IsNode, len(nodes))
	for i, n := range nodes {
		out[i] = f.node(n)
	}
	return out
}

// attribute rewrites what n reads or asks for.
func (f *flattener) attribute(n ast.IsNode, s ast.StrOpNode) ast.StrOpNode {
	path, ok := contextPath(n)
	switch {
	case !ok:
		return ast.StrOpNode{Arg: f.node(s.Arg), Value: s.Value}
	case len(path) == 2 && isGroup(path[0]):
		return ast.StrOpNode{Arg: ast.NodeTypeVariable{Name: "context"}, Value: path[0] + "." + path[1]}
	case len(path) == 1 && !isGroup(path[0]):
		return s
	case len(path) == 2 && path[0] == "arg":
		return s
	}
	f.ok = false
	return s
}

func isGroup(name types.String) bool {
	for _, l := range leaves {
		if l.group == name {
			return true
		}
	}
	return false
}

func (f *flattener) node(n ast.IsNode) ast.IsNode {
	switch n := n.(type) {
	case ast.NodeTypeAccess:
		return ast.NodeTypeAccess{StrOpNode: f.attribute(n, n.StrOpNode)}
	case ast.NodeTypeHas:
		return ast.NodeTypeHas{StrOpNode: f.attribute(n, n.StrOpNode)}
	case ast.NodeTypeVariable:
		f.ok = f.ok && n.Name != "context"
		return n
	case ast.NodeValue:
		return n
	case ast.NodeTypeIfThenElse:
		return ast.NodeTypeIfThenElse{If: f.node(n.If), Then: f.node(n.Then), Else: f.node(n.Else)}
	case ast.NodeTypeLike:
		return ast.NodeTypeLike{Arg: f.node(n.Arg), Value: n.Value}
	case ast.NodeTypeIs:
		return ast.NodeTypeIs{Left: f.node(n.Left), EntityType: n.EntityType}
	case ast.NodeTypeIsIn:
		is := ast.NodeTypeIs{Left: f.node(n.Left), EntityType: n.EntityType}
		return ast.NodeTypeIsIn{NodeTypeIs: is, Entity: f.node(n.Entity)}
	case ast.NodeTypeExtensionCall:
		return ast.NodeTypeExtensionCall{Name: n.Name, Args: f.list(n.Args)}
	case ast.NodeTypeSet:
		return ast.NodeTypeSet{Elements: f.list(n.Elements)}
	case ast.NodeTypeNot:
		return ast.NodeTypeNot{UnaryNode: f.one(n.UnaryNode)}
	case ast.NodeTypeNegate:
		return ast.NodeTypeNegate{UnaryNode: f.one(n.UnaryNode)}
	case ast.NodeTypeIsEmpty:
		return ast.NodeTypeIsEmpty{UnaryNode: f.one(n.UnaryNode)}
	}
	return f.binary(n)
}

func (f *flattener) binary(n ast.IsNode) ast.IsNode {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return ast.NodeTypeAnd{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeOr:
		return ast.NodeTypeOr{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeEquals:
		return ast.NodeTypeEquals{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeNotEquals:
		return ast.NodeTypeNotEquals{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeLessThan:
		return ast.NodeTypeLessThan{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeLessThanOrEqual:
		return ast.NodeTypeLessThanOrEqual{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeGreaterThan:
		return ast.NodeTypeGreaterThan{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeGreaterThanOrEqual:
		return ast.NodeTypeGreaterThanOrEqual{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeAdd:
		return ast.NodeTypeAdd{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeSub:
		return ast.NodeTypeSub{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeMult:
		return ast.NodeTypeMult{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeIn:
		return ast.NodeTypeIn{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeContains:
		return ast.NodeTypeContains{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeContainsAll:
		return ast.NodeTypeContainsAll{BinaryNode: f.pair(n.BinaryNode)}
	case ast.NodeTypeContainsAny:
		return ast.NodeTypeContainsAny{BinaryNode: f.pair(n.BinaryNode)}
	}
	f.ok = false // records and tags, which policies seldom use
	return n
}
