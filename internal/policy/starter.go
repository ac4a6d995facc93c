package policy

import (
	"embed"
	"fmt"
	"path"
	"strings"
)

//go:embed starter
var starterFiles embed.FS

// Starter returns the policies that an installation begins with. They permit what is not objected to, and object to what
// untrusted content, labelled data and spent budgets could lead to.
func Starter() []Source { return starter(".cedar") }

// StarterFixtures returns the fixtures of the starter policies, for [ReadFixtures].
func StarterFixtures() []Source { return starter(".test.yaml") }

func starter(ext string) []Source {
	entries, err := starterFiles.ReadDir("starter")
	if err != nil {
		panic(fmt.Sprintf("the embedded starter policies cannot be read: %v", err))
	}
	var out []Source
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ext) {
			continue
		}
		text, err := starterFiles.ReadFile(path.Join("starter", e.Name()))
		if err != nil {
			panic(fmt.Sprintf("the embedded starter policies cannot be read: %v", err))
		}
		out = append(out, Source{Name: e.Name(), Text: text})
	}
	return out
}
