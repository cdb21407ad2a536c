package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/work"
)

const nginxConfig = `daemon off;
worker_processes auto;
pid {{.Dir}}/nginx.pid;
error_log {{.Dir}}/nginx.log crit;
worker_rlimit_nofile 8192;
{{- if .Root}}
user root;
{{- end}}
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path {{.Dir}}/t1;
  proxy_temp_path {{.Dir}}/t2;
  fastcgi_temp_path {{.Dir}}/t3;
  uwsgi_temp_path {{.Dir}}/t4;
  scgi_temp_path {{.Dir}}/t5;
  keepalive_requests 100000000;
  keepalive_timeout 1h;
  upstream api {
    server {{.Upstream}};
    keepalive 256;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
  }
{{- if .OPA}}
  upstream opa {
    server {{.OPA}};
    keepalive 256;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
  }
{{- end}}
  server {
    listen {{.Address}} backlog=4096;
    location / {
{{- if .OPA}}
      if ($http_authorization = "") { return 401; }
      set $wanted $uri; # the subrequest's own $uri is another
      auth_request /decision;
{{- end}}
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
{{- if .OPA}}
      proxy_set_header X-User "";
{{- end}}
    }
{{- if .OPA}}
    location = /decision {
      internal;
      proxy_pass http://opa/v0/data/gateway/allow;
      proxy_method POST;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Content-Type application/json;
      proxy_set_header Authorization "";
      proxy_set_body '{"method":"$request_method","path":"$wanted","authorization":"$http_authorization"}';
      proxy_intercept_errors on;
      error_page 404 = @denied;
    }
    location @denied { return 403; }
{{- end}}
  }
}
`

func nginxPlain() System {
	return System{
		Name: "nginx", About: "nginx, plain proxy", Deviates: plain(),
		plan: func(s Site) ([]process.Spec, error) { return nginx(s, "") },
	}
}

// nginxOPA is the usual way to put OPA before an API. OPA answers 404 when the
// rule is undefined, which becomes a denial; auth_request sees statuses only.
func nginxOPA(name string, cached bool) System {
	const onlyYesOrNo = "OPA's status says yes or no, and not why"
	s := System{
		Name: name, About: "nginx auth_request to an OPA server, token verified in Rego, OPA's io_jwt cache off",
		Deviates: map[string]Deviation{
			work.Subject: {Status: 200, Why: "auth_request does not read OPA's answer, which has the subject in its body"},
			work.Expired: {Status: 403, Why: onlyYesOrNo},
			work.Forged:  {Status: 403, Why: onlyYesOrNo},
		},
	}
	if cached {
		s.About = strings.Replace(s.About, "cache off", "cache on", 1)
	}
	s.plan = func(site Site) ([]process.Spec, error) {
		server, err := opa(site, cached)
		if err != nil {
			return nil, err
		}
		front, err := nginx(site, site.Admin)
		return append([]process.Spec{server}, front...), err
	}
	return s
}

// nginx forwards, and asks the OPA at opa when it is not empty.
func nginx(s Site, opa string) ([]process.Spec, error) {
	path, err := write(s, "nginx.conf", nginxConfig, map[string]any{
		"Dir": s.Dir, "Address": s.Address, "Upstream": s.Upstream, "OPA": opa, "Root": os.Getuid() == 0,
	})
	return []process.Spec{{
		Name: "nginx", Path: s.Programs.Nginx, Args: []string{"-p", s.Dir, "-e", filepath.Join(s.Dir, "nginx.log"), "-c", path}, Listens: s.Address,
	}}, err
}

const opaConfig = `decision_logs: {console: false}
{{- if .Cached}}
caching: {inter_query_builtin_value_cache: {named: {io_jwt: {max_num_entries: 100000}}}}
{{- end}}
`

// opaPolicy decides as the gateway's does, and verifies the token itself.
const opaPolicy = `package gateway

allow if {
	startswith(input.authorization, "Bearer ")
	[valid, _, claims] := io.jwt.decode_verify(substring(input.authorization, 7, -1), {
		"cert": keys,
		"alg": "RS256",
		"iss": "{{.Issuer}}",
		"aud": "{{.Audience}}",
	})
	valid
	some role in claims.roles
	some grant in data.grants[role]
	grant.method == input.method
	startswith(input.path, grant.prefix)
}

keys := {{.Keys}}
`

func opa(s Site, cached bool) (process.Spec, error) {
	keys, err := os.ReadFile(s.Work.JWKS)
	if err != nil {
		return process.Spec{}, fmt.Errorf("read the key set: %w", err)
	}
	config, err := write(s, "opa.yaml", opaConfig, map[string]any{"Cached": cached})
	if err != nil {
		return process.Spec{}, err
	}
	data, err := write(s, "data.json", grants, nil)
	if err != nil {
		return process.Spec{}, err
	}
	policy, err := write(s, "opa.rego", opaPolicy, map[string]any{
		"Issuer": work.Issuer, "Audience": work.Audience, "Keys": strconv.Quote(string(keys)),
	})
	return process.Spec{
		Name: "opa", Path: s.Programs.OPA, Listens: s.Admin,
		Args: []string{"run", "--server", "--addr", s.Admin, "--log-level", "error", "--disable-telemetry", "--config-file", config, policy, data},
	}, err
}
