package system

import "github.com/sallyport/sallyport/bench/process"

func fastHTTP() System { return own("fasthttp", "a minimal proxy with fasthttp") }

func netHTTP() System { return own("nethttp", "a minimal proxy with httputil.ReverseProxy") }

// own is a proxy that the harness's program is itself, by a verb.
func own(name, about string) System {
	return System{Name: name, About: about, Deviates: plain(), plan: func(s Site) ([]process.Spec, error) {
		return []process.Spec{Own(s.Programs.Bench, name, s.Address, s.Upstream)}, nil
	}}
}

// Own is the harness's program as one of its own servers.
func Own(program, verb, address, upstream string) process.Spec {
	return process.Spec{
		Name: verb, Path: program, Args: []string{"serve", "-listen", address, "-upstream", upstream, verb}, Listens: address,
	}
}

const caddyConfig = `{
  "admin": {"disabled": true, "config": {"persist": false}},
  "logging": {"logs": {"default": {"level": "ERROR"}}},
  "apps": {"http": {"servers": {"public": {
    "listen": ["{{.Address}}"],
    "automatic_https": {"disable": true},
    "idle_timeout": "1h",
    "routes": [{"handle": [{
      "handler": "reverse_proxy",
      "upstreams": [{"dial": "{{.Upstream}}"}],
      "transport": {"protocol": "http", "compression": false, "keep_alive": {"max_idle_conns_per_host": 512, "idle_timeout": "1h"}}
    }]}]
  }}}}
}
`

func caddy() System {
	return System{Name: "caddy", About: "Caddy, plain proxy", Deviates: plain(), plan: func(s Site) ([]process.Spec, error) {
		path, err := write(s, "caddy.json", caddyConfig, s)
		return []process.Spec{{Name: "caddy", Path: s.Programs.Caddy, Args: []string{"run", "--config", path}, Listens: s.Address}}, err
	}}
}
