package certs

import (
	"slices"
	"testing"

	"github.com/sallyport/sallyport/engine/setting"
)

func TestValidate(t *testing.T) {
	base := Config{CertFile: "c", KeyFile: "k"}
	with := func(f func(*Config)) Config {
		c := base
		f(&c)
		return c
	}
	for _, tt := range []struct {
		name   string
		config Config
		keys   []string
	}{
		{"certificate alone", base, nil},
		{"clients", with(func(c *Config) { c.ClientCAFile, c.ClientAuth, c.MinVersion = "ca", "optional", "1.3" }), nil},
		{"nothing", Config{}, []string{"cert_file", "key_file"}},
		{"all wrong", Config{MinVersion: "1.1", ClientAuth: "required", CRLFiles: []string{"x"}}, []string{"cert_file", "key_file", "min_version", "client_ca_file", "crl_files"}},
		{"unknown client_auth", with(func(c *Config) { c.ClientAuth = "request" }), []string{"client_auth"}},
		{"CA without effect", with(func(c *Config) { c.ClientCAFile, c.ClientAuth = "ca", "none" }), []string{"client_auth"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var keys []string
			for _, p := range setting.Problems(tt.config.Validate()) {
				keys = append(keys, p.Key)
			}
			if !slices.Equal(keys, tt.keys) {
				t.Errorf("problems of %q, want %q", keys, tt.keys)
			}
		})
	}
}
