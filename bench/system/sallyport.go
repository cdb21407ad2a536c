package system

import (
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
    address: {{.Address}}
    limits: {idle_timeout: 1h}
admin: {address: {{.Admin}}}
authenticators:
{{- if .Anonymous}}
  who: {anonymous: {}}
{{- else}}
  who: {jwt: {issuer: {{.Issuer}}, audiences: [{{.Audience}}], algorithms: [RS256], jwks_file: {{.JWKS}}}}
{{- end}}
upstreams:
  api: {endpoints: ["http://{{.Upstream}}"], idle_timeout: 1h}
routes:
  - {name: all, match: {path: "/**"}, authenticate: [who], upstream: api}
policy:
  paths: [policy.rego, data.json]
  decision_cache: {entries: {{.Cached}}}
telemetry: {log: {level: ERROR}}
`

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

func sallyportPlain() System {
	return System{
		Name: "sallyport-plain", About: "this gateway without authentication, policy constant, metrics on, decision log off",
		Deviates: plain(),
		plan:     func(s Site) ([]process.Spec, error) { return sallyport(s, true, sallyportOpen, 0) },
	}
}

func sallyportJWT() System {
	const step = "a step of the whole: the policy is constant"
	return System{
		Name: "sallyport-jwt", About: "this gateway with tokens verified, policy constant, metrics on, decision log off",
		Deviates: map[string]Deviation{
			work.Subject:   {Status: 200, Why: step},
			work.Forbidden: {Status: 200, Why: step},
		},
		plan: func(s Site) ([]process.Spec, error) { return sallyport(s, false, sallyportOpen, 0) },
	}
}

func sallyportCached() System {
	return System{
		Name: "sallyport", About: "this gateway whole: tokens, policy with its decisions cached, decision log to a file, metrics",
		plan: func(s Site) ([]process.Spec, error) { return sallyport(s, false, sallyportPolicy, 100_000) },
	}
}

// sallyportUncached has a cache of one entry: the subject is part of what is
// asked, and the next request has another one, so that each looks in vain, is
// decided anew and takes the place of the one before.
func sallyportUncached() System {
	return System{
		Name: "sallyport-uncached", About: "this gateway whole, its decision cache always missing",
		plan: func(s Site) ([]process.Spec, error) { return sallyport(s, false, sallyportPolicy, 1) },
	}
}

func sallyport(s Site, anonymous bool, policy string, cached int) ([]process.Spec, error) {
	for name, text := range map[string]string{"policy.rego": policy, "data.json": grants} {
		if _, err := write(s, name, text, nil); err != nil {
			return nil, err
		}
	}
	path, err := write(s, "sallyport.yaml", sallyportConfig, map[string]any{
		"Address": s.Address, "Admin": s.Admin, "Upstream": s.Upstream, "Anonymous": anonymous,
		"Cached": cached,
		"Issuer": work.Issuer, "Audience": work.Audience, "JWKS": s.Work.JWKS,
	})
	return []process.Spec{{Name: "sallyport", Path: s.Programs.Sallyport, Args: []string{"serve", "-c", path}, Listens: s.Address}}, err
}
