package engine

import (
	"errors"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config says what is asked of a policy and what a policy may do.
type Config struct {
	// Entrypoint is the rule that decides when the route names none: the path
	// below data, as "gateway/decision" for data.gateway.decision.
	Entrypoint string `yaml:"entrypoint"`
	// DecisionTimeout bounds the evaluation of one decision. Past it the request
	// is denied and counted as a policy fault. Time in which the process has no
	// processor is not counted, up to ten times the timeout; it is where built-in
	// functions that reach the network are open.
	DecisionTimeout time.Duration `yaml:"decision_timeout"`
	// Builtins opens built-in functions that are closed by default.
	Builtins BuiltinConfig `yaml:"builtins"`
	// DecisionCache keeps decisions for requests that are the same to the policy.
	DecisionCache CacheConfig `yaml:"decision_cache"`
}

// CacheConfig bounds the decision cache. A decision is kept only if it depends on
// nothing but the input that the policy can read and the active revision, and never
// longer than the credential is good.
type CacheConfig struct {
	// Entries is how many decisions are kept; 0 turns the cache off.
	Entries int `yaml:"entries"`
	// MaxBytes is about how much memory they may take.
	MaxBytes setting.Size `yaml:"max_bytes"`
	// MaxAge is how long a decision is kept at most.
	MaxAge time.Duration `yaml:"max_age"`
}

// BuiltinConfig opens built-in functions that reach outside of the evaluation.
type BuiltinConfig struct {
	// Allow lists built-in functions to open, such as http.send. Closed by
	// default are http.send, net.lookup_ip_addr, opa.runtime, io.jwt.encode_sign,
	// io.jwt.encode_sign_raw, rego.parse_module, providers.aws.sign_req, print
	// and trace.
	Allow []string `yaml:"allow"`
	// AllowNet lists the host names that http.send, net.lookup_ip_addr and the
	// remote references of JSON schemas may reach. Empty means none; the single
	// entry "*" means any.
	AllowNet []string `yaml:"allow_net"`
}

// Default returns the configuration of a gateway that says nothing about it.
func Default() Config {
	return Config{
		Entrypoint: "gateway/decision", DecisionTimeout: 50 * time.Millisecond,
		DecisionCache: CacheConfig{Entries: 100_000, MaxBytes: 64 << 20, MaxAge: 5 * time.Minute},
	}
}

// Validate reports all problems of the configuration.
func (c *Config) Validate() error {
	var problems []error
	if _, err := entrypointRef(c.Entrypoint); err != nil {
		problems = append(problems, setting.Problemf("entrypoint", "%w", err))
	}
	if c.DecisionTimeout <= 0 {
		problems = append(problems, setting.Problemf("decision_timeout", "must be more than 0"))
	}
	problems = append(problems, setting.Under("builtins", c.Builtins.Validate()), setting.Under("decision_cache", c.DecisionCache.Validate()))
	return errors.Join(problems...)
}

// Validate reports all problems of the configuration.
func (c *CacheConfig) Validate() error {
	var problems []error
	if c.Entries < 0 {
		problems = append(problems, setting.Problemf("entries", "must not be negative; 0 turns the cache off"))
	}
	if c.Entries > 0 && c.MaxBytes <= 0 {
		problems = append(problems, setting.Problemf("max_bytes", "must be more than 0"))
	}
	if c.Entries > 0 && c.MaxAge <= 0 {
		problems = append(problems, setting.Problemf("max_age", "must be more than 0"))
	}
	return errors.Join(problems...)
}

// Validate reports all problems of the configuration.
func (b *BuiltinConfig) Validate() error {
	var problems []error
	for _, name := range b.Allow {
		if _, ok := ast.BuiltinMap[name]; !ok {
			problems = append(problems, setting.Problemf("allow", "%q is not a built-in function", name))
		}
	}
	for _, host := range b.AllowNet {
		if host == "" || strings.ContainsAny(host, "/: ") || host == anyHost && len(b.AllowNet) > 1 {
			problems = append(problems, setting.Problemf("allow_net", `%q is not a host name without port (or "*" alone)`, host))
		}
	}
	return errors.Join(problems...)
}

var errEntrypoint = errors.New(`must be a rule's path below data, such as "gateway/decision"`)

// entrypointRef returns the reference that a query for the entrypoint evaluates.
// It is built from the segments, so that no text of the configuration is parsed
// as Rego.
func entrypointRef(path string) (ast.Ref, error) {
	ref := ast.Ref{ast.DefaultRootDocument}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" {
			return nil, errEntrypoint
		}
		ref = append(ref, ast.StringTerm(segment))
	}
	return ref, nil
}
