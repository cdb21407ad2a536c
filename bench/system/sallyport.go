package system

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/work"
)

// grants are who may do what, the data of every policy that is written in Rego.
const grants = `{"grants": {
	"reader": [{"method": "GET", "prefix": "/v1/orders/"}],
	"writer": [{"method": "GET", "prefix": "/v1/orders/"}, {"method": "POST", "prefix": "/v1/orders/"}]
}}
`

const sallyportConfig = `version: v1
listeners:
  - name: public
    address: {{.Site.Address}}
    limits: {idle_timeout: 1h}
admin: {address: {{.Site.Admin}}}
authenticators:
{{- if .Anonymous}}
  who: {anonymous: {}}
{{- else}}
  who:
    jwt:
      issuer: {{.Issuer}}
      audiences: [{{.Audience}}]
      algorithms: [{{.Algorithm}}]
      jwks_file: {{.JWKS}}
{{- with .Tokens}}
      cache_size: {{.}}
{{- end}}
{{- end}}
{{- if .Others}}
  keys: {api_key: {file: {{.Others}}}}
  other:
    jwt:
      issuer: https://other.example
      audiences: [{{.Audience}}]
      algorithms: [{{.Algorithm}}]
      jwks_file: {{.JWKS}}
{{- end}}
upstreams:
  api: {endpoints: ["http://{{.Site.Upstream}}"], idle_timeout: 1h}
routes:
  - {name: all, match: {path: "/**"}, authenticate: [{{if .Others}}keys, other, {{end}}who], upstream: api}
policy:
{{- with .Timeout}}
  decision_timeout: {{.}}
{{- end}}
{{- with .Paths}}
  paths:
{{- range .}}
    - {{.}}
{{- end}}
{{- end}}
{{- with .Bundles}}
  opa:
    services: {bundles: {url: "{{.}}"}}
    bundles:
      bench: {service: bundles, resource: bench.tar.gz, polling: {min_delay_seconds: 1, max_delay_seconds: 1}}
{{- end}}
{{- with .Decisions}}
  decision_cache: {entries: {{.}}}
{{- end}}
telemetry: {log: {level: ERROR}}
`

// partnerKeys is a file of API keys that nobody has.
const partnerKeys = `- {id: nobody, subject: nobody, sha256: 0000000000000000000000000000000000000000000000000000000000000000}
`

// Gateway is a configuration of this gateway. What is left out is what the
// product has by default.
type Gateway struct {
	Anonymous bool   // nobody is asked for a token
	Others    bool   // two authenticators that the tokens are not for are asked first
	JWKS      string // file with the keys of tokens, if not the work's
	Algorithm string // of tokens, if not RS256
	Tokens    int    // verified tokens kept
	Decisions int    // decisions kept
	// Timeout bounds a decision.
	Timeout time.Duration

	// Where policies come from: files of the gateway's folder, a folder, or the
	// service at this URL that has the bundle bench.tar.gz.
	Files   map[string]string
	Folder  string
	Bundles string
}

// Plan writes the configuration and returns the program to run.
func (g Gateway) Plan(s Site) (process.Spec, error) {
	var paths []string
	if g.Folder != "" {
		paths = append(paths, g.Folder)
	}
	for _, name := range slices.Sorted(maps.Keys(g.Files)) {
		path := filepath.Join(s.Dir, name)
		if err := os.WriteFile(path, []byte(g.Files[name]), 0o600); err != nil {
			return process.Spec{}, fmt.Errorf("write %s: %w", name, err)
		}
		paths = append(paths, path)
	}
	others := ""
	if g.Others {
		others = filepath.Join(s.Dir, "keys.yaml")
		if err := os.WriteFile(others, []byte(partnerKeys), 0o600); err != nil {
			return process.Spec{}, fmt.Errorf("write keys.yaml: %w", err)
		}
	}
	path, err := write(s, "sallyport.yaml", sallyportConfig, map[string]any{
		"Site": s, "Anonymous": g.Anonymous, "Others": others, "Issuer": work.Issuer, "Audience": work.Audience,
		"JWKS": cmp.Or(g.JWKS, s.Work.JWKS), "Algorithm": cmp.Or(g.Algorithm, work.RS256), "Tokens": g.Tokens,
		"Paths": paths, "Bundles": g.Bundles, "Decisions": g.Decisions, "Timeout": g.Timeout,
	})
	return process.Spec{Name: "sallyport", Path: s.Programs.Sallyport, Args: []string{"serve", "-c", path}, Listens: s.Address}, err
}

// Granting is the policy of the whole gateway and its data: it decides as the
// other systems' rules do.
func Granting() map[string]string {
	return map[string]string{"policy.rego": sallyportPolicy, "data.json": grants}
}

// sallyportOpen lets everything through and logs nothing: the steps below the
// whole gateway.
const sallyportOpen = `package gateway

decision := {"allow": true, "reason": "open", "log": {"drop": true}}
`

// sallyportPolicy decides as the other systems' rules do.
const sallyportPolicy = `package gateway

default decision := {"allow": false, "reason": "no grant covers this"}

decision := {
	"allow": true,
	"reason": "granted",
	"upstream": {"set_headers": {"x-user": input.identity.subject}},
} if {
	some role in input.identity.claims.roles
	some grant in data.grants[role]
	grant.method == input.request.method
	startswith(input.request.path, grant.prefix)
}
`

// sallyportSilent is the same with every decision left out of the log.
var sallyportSilent = strings.Replace(strings.Replace(sallyportPolicy,
	`"no grant covers this"}`, `"no grant covers this", "log": {"drop": true}}`, 1),
	`"reason": "granted",`, `"reason": "granted", "log": {"drop": true},`, 1)

func sallyportPlain() System {
	return System{
		Name: "sallyport-plain", About: "this gateway without authentication, policy constant and cached, metrics on, decision log dropped",
		Deviates: plain(),
		plan:     gateway(Gateway{Anonymous: true, Files: map[string]string{"policy.rego": sallyportOpen}}),
	}
}

func sallyportJWT() System {
	const step = "a step of the whole: the policy is constant"
	return System{
		Name: "sallyport-jwt", About: "this gateway with tokens verified, policy constant and cached, metrics on, decision log dropped",
		Deviates: map[string]Deviation{
			work.Subject:   {Status: 200, Why: step},
			work.Forbidden: {Status: 200, Why: step},
		},
		plan: gateway(Gateway{Files: map[string]string{"policy.rego": sallyportOpen}}),
	}
}

// sallyportNoLog shows what the decision log costs, beside the whole.
func sallyportNoLog() System {
	files := Granting()
	files["policy.rego"] = sallyportSilent
	return System{
		Name: "sallyport-nolog", About: "this gateway with tokens verified, policy with its decisions cached, metrics on, decision log dropped by the policy",
		plan: gateway(Gateway{Files: files}),
	}
}

func sallyportCached() System {
	return System{
		Name: "sallyport", About: "this gateway whole: tokens, policy with its decisions cached, decision log to a file, metrics",
		plan: gateway(Gateway{Files: Granting()}),
	}
}

// sallyportTwo shows what authenticators cost that the tokens are not for: API keys and
// a second issuer are asked before the one that accepts.
func sallyportTwo() System {
	return System{
		Name: "sallyport-two", About: "the same as sallyport, with API keys and a second issuer asked before the issuer of the tokens",
		plan: gateway(Gateway{Others: true, Files: Granting()}),
	}
}

// sallyportUncached has a cache of one entry: the subject is part of what is
// asked, and the next request has another one, so that each looks in vain, is
// decided anew and takes the place of the one before.
func sallyportUncached() System {
	return System{
		Name: "sallyport-uncached", About: "this gateway whole, its decision cache always missing",
		plan: gateway(Gateway{Files: Granting(), Decisions: 1}),
	}
}

func gateway(g Gateway) func(Site) ([]process.Spec, error) {
	return func(s Site) ([]process.Spec, error) {
		spec, err := g.Plan(s)
		return []process.Spec{spec}, err
	}
}
