package loader

import (
	"fmt"
	"strings"

	"tool/core/model/label"
)

func parseVisibility(list []string, in label.Label) ([]Visibility, error) {
	var out []Visibility
	for _, s := range list {
		switch s {
		case "//visibility:public":
			out = append(out, Visibility{Public: true})
			continue
		case "//visibility:private":
			out = append(out, Visibility{Private: true})
			continue
		}
		if strings.HasPrefix(s, "//visibility:") {
			return nil, fmt.Errorf("%q is none of //visibility:public, //visibility:private", s)
		}
		l, err := label.Parse(s, in)
		if err != nil {
			return nil, err
		}
		switch l.Name {
		case "__pkg__":
			out = append(out, Visibility{Package: l.Package()})
		case "__subpackages__":
			out = append(out, Visibility{Package: l.Package(), Tree: true})
		default:
			out = append(out, Visibility{Group: l})
		}
	}
	if len(out) > 1 {
		for _, v := range out {
			if v.Public || v.Private {
				return nil, fmt.Errorf("public and private cannot be combined with anything else")
			}
		}
	}
	if len(out) == 0 {
		out = []Visibility{{Private: true}}
	}
	return out, nil
}

func parsePackageSpec(s string, in label.Label) (PackageSpec, error) {
	var p PackageSpec
	if r, ok := strings.CutPrefix(s, "-"); ok {
		p.Negative, s = true, r
	}
	switch s {
	case "public":
		p.Public = true
		return p, nil
	case "private":
		p.Private = true
		return p, nil
	}
	rest, ok := strings.CutPrefix(s, "//")
	if !ok {
		return p, fmt.Errorf("package %q must start with //", s)
	}
	if rest == "..." || strings.HasSuffix(rest, "/...") {
		p.Tree = true
		rest = strings.TrimSuffix(strings.TrimSuffix(rest, "..."), "/")
	}
	p.Package = label.Label{Repo: in.Repo, Pkg: rest}
	return p, label.CheckPackage(rest)
}

// Contains reports whether the spec covers the package.
func (p PackageSpec) Contains(pkg label.Label) bool {
	if p.Public {
		return true
	}
	if p.Private || p.Package.Repo != pkg.Repo {
		return false
	}
	return pkg.Pkg == p.Package.Pkg || p.Tree && (p.Package.Pkg == "" || strings.HasPrefix(pkg.Pkg, p.Package.Pkg+"/"))
}

// Allows reports whether the entry admits the package; groups are resolved by
// the caller.
func (v Visibility) Allows(pkg label.Label) bool {
	if v.Public {
		return true
	}
	if v.Private || !v.Group.IsZero() {
		return false
	}
	return PackageSpec{Package: v.Package, Tree: v.Tree}.Contains(pkg)
}
