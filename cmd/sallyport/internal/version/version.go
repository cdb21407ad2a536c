// Package version tells which build this is: the version that the linker set,
// and what the Go toolchain recorded of the tree and the libraries that matter
// to whoever reads a bug report.
package version

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -X .../version.version=v1.2.3.
var version = "dev"

// Info is what the version verb and the admin listener show.
type Info struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OPA     string `json:"opa"`
}

// String returns the version alone.
func String() string { return version }

// Get collects the build's facts.
func Get() Info {
	info := Info{Version: version, Go: runtime.Version()}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	for _, s := range build.Settings {
		if s.Key == "vcs.revision" {
			info.Commit = s.Value
		}
	}
	for _, dep := range build.Deps {
		if dep.Path == "github.com/open-policy-agent/opa" {
			info.OPA = dep.Version
		}
	}
	return info
}
