package system

import (
	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/work"
)

// haproxyConfig checks the token as HAProxy's documentation of jwt_verify does.
const haproxyConfig = `global
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always
frontend public
  bind {{.Address}}
{{- if .Key}}
  http-request deny deny_status 401 unless { req.hdr(authorization) -m found }
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
  http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.sub) var(txn.bearer),jwt_payload_query('$.sub')
  http-request set-var(txn.role) var(txn.bearer),jwt_payload_query('$.roles[0]')
  http-request set-var(txn.now) date
  http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }
  http-request deny deny_status 401 unless { var(txn.iss) -m str {{.Issuer}} }
  http-request deny deny_status 401 unless { var(txn.aud) -m str {{.Audience}} }
  http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int lt 0 }
  http-request deny deny_status 401 unless { var(txn.bearer),jwt_verify(txn.alg,"{{.Key}}") -m int 1 }
  acl orders path_beg /v1/orders/
  acl may_read var(txn.role) -m str reader writer
  acl may_write var(txn.role) -m str writer
  http-request deny deny_status 403 unless orders METH_GET may_read or orders METH_POST may_write
  http-request set-header X-User %[var(txn.sub)]
{{- end}}
  default_backend api
backend api
  server one {{.Upstream}} maxconn 1024
`

func haproxyPlain() System {
	return System{
		Name: "haproxy", About: "HAProxy, plain proxy", Deviates: plain(),
		plan: func(s Site) ([]process.Spec, error) { return haproxy(s, "") },
	}
}

func haproxyJWT() System {
	return System{
		Name: "haproxy-jwt", About: "HAProxy with its own jwt_verify, role by ACL",
		plan: func(s Site) ([]process.Spec, error) { return haproxy(s, s.Work.PublicKey) },
	}
}

func haproxy(s Site, key string) ([]process.Spec, error) {
	path, err := write(s, "haproxy.cfg", haproxyConfig, map[string]any{
		"Address": s.Address, "Upstream": s.Upstream, "Key": key, "Issuer": work.Issuer, "Audience": work.Audience,
	})
	return []process.Spec{{Name: "haproxy", Path: s.Programs.HAProxy, Args: []string{"-db", "-f", path}, Listens: s.Address}}, err
}
