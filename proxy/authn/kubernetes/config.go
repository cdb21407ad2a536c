package kubernetes

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "kubernetes"

// Config is one cluster whose service accounts may enter.
type Config struct {
	// APIServer is the base URL of the API server, https or loopback.
	APIServer string `yaml:"api_server"`
	// TokenFile holds the token by which the gateway asks. Its service account needs
	// the cluster role system:auth-delegator. It is read again when it changes, and
	// when the API server does not accept the token any more.
	TokenFile string `yaml:"token_file" sallyport:"path"`
	// CAFile holds the PEM certificates that the API server is verified with; empty
	// are the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// Audiences are the values one of which a token must be made for, as projected
	// volumes and the TokenRequest API do. The API server confirms it.
	Audiences []string `yaml:"audiences"`
	// Issuers are the iss claims of this cluster's tokens, where a route takes those of
	// several. Without any, every JWT with the claims of a service account is asked about.
	Issuers []string `yaml:"issuers"`
	// AccessReview asks in addition whether the API server's authorizers allow the
	// caller something, and puts the answer into claims.access for the policy.
	AccessReview *AccessReview `yaml:"access_review"`

	// CacheMaxAge is how long an answer counts at most, and so how long the token of a
	// pod that was deleted can still be used; 0s asks about each request.
	CacheMaxAge time.Duration `yaml:"cache_max_age"`
	// RefusedMaxAge is how long a token that was refused is refused unasked.
	RefusedMaxAge time.Duration `yaml:"refused_max_age"`
	// CacheSize is the number of tokens kept, and of answers about access.
	CacheSize int `yaml:"cache_size"`

	// Timeout bounds one question, the wait for its turn included.
	Timeout time.Duration `yaml:"timeout"`
	// MaxCalls is how many questions may be under way at once. Others wait for
	// max_wait and then get 503.
	MaxCalls int `yaml:"max_calls"`
	// MaxWait is how long a question waits for its turn.
	MaxWait time.Duration `yaml:"max_wait"`
	// QuestionLimit bounds the questions that a client causes with tokens that the API
	// server does not accept.
	QuestionLimit limit.Config `yaml:"question_limit"`
	// Realm is the realm of the WWW-Authenticate challenge (RFC 9110 section 11.5).
	Realm string `yaml:"realm"`
}

// AccessReview is what is asked about the caller. With resource it is about an object
// of the cluster, else about a path that is none: path, or that of the request.
type AccessReview struct {
	// Group is the API group of the resource, empty for the core group.
	Group string `yaml:"group"`
	// Resource is the plural name of the resource, such as pods; "*" is all.
	Resource string `yaml:"resource"`
	// Subresource is a part of the resource, such as log.
	Subresource string `yaml:"subresource"`
	// Namespace is the namespace of the resource; empty means all of them, or a
	// resource that is in none.
	Namespace string `yaml:"namespace"`
	// Name is the name of one object; empty means all of them.
	Name string `yaml:"name"`
	// Verb is what the caller wants to do. By default it follows the method of the
	// request: get, create, update, patch or delete for a resource, the method in lower
	// case for a path.
	Verb string `yaml:"verb"`
	// Path is a path that is no resource, such as /orders. By default it is the path of
	// the request as the client sent it.
	Path string `yaml:"path"`
}

const (
	serviceAccountFiles = "/var/run/secrets/kubernetes.io/serviceaccount/"
	maxCacheAge         = 10 * time.Minute
)

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		APIServer:     "https://kubernetes.default.svc",
		TokenFile:     serviceAccountFiles + "token",
		CAFile:        serviceAccountFiles + "ca.crt",
		CacheMaxAge:   10 * time.Second,
		RefusedMaxAge: 5 * time.Second,
		CacheSize:     16384,
		Timeout:       2 * time.Second,
		MaxCalls:      32,
		MaxWait:       100 * time.Millisecond,
		QuestionLimit: limit.DefaultQuestions(),
		Realm:         "sallyport",
	}
}

// Validate reports everything wrong with c. It reads no files.
func (c Config) Validate() error {
	return errors.Join(c.validateServer(), c.validateNames(), c.validateLimits(), setting.Under("access_review", c.AccessReview.validate()))
}

func (c Config) validateServer() error {
	var errs []error
	errs = append(errs, setting.Under("api_server", fetch.CheckURL(c.APIServer, false)))
	if u, err := url.Parse(c.APIServer); err == nil && u.RawQuery != "" {
		errs = append(errs, setting.Problemf("api_server", "has a query; it is the base of the API's paths"))
	}
	if c.TokenFile == "" {
		errs = append(errs, setting.Problemf("token_file", "is missing: the API server must know who asks"))
	}
	return errors.Join(errs...)
}

func (c Config) validateNames() error {
	var errs []error
	if len(c.Audiences) == 0 {
		errs = append(errs, setting.Problemf("audiences", "is missing: a token made for another service must not enter here"))
	}
	if slices.Contains(c.Audiences, "") {
		errs = append(errs, setting.Problemf("audiences", "contains an empty value"))
	}
	if slices.Contains(c.Issuers, "") {
		errs = append(errs, setting.Problemf("issuers", "contains an empty value"))
	}
	bad := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if strings.ContainsFunc(c.Realm, bad) {
		errs = append(errs, setting.Problemf("realm", "%q has characters that do not stand in a quoted string of a header", c.Realm))
	}
	return errors.Join(errs...)
}

func (c Config) validateLimits() error {
	return errors.Join(
		setting.Between("cache_max_age", c.CacheMaxAge, 0, maxCacheAge),
		setting.Between("refused_max_age", c.RefusedMaxAge, 0, time.Minute),
		setting.Between("cache_size", c.CacheSize, 1, 1<<24),
		setting.Between("timeout", c.Timeout, 10*time.Millisecond, 30*time.Second),
		setting.Between("max_calls", c.MaxCalls, 1, 1<<16),
		setting.Between("max_wait", c.MaxWait, 0, 30*time.Second),
		setting.Under("question_limit", c.QuestionLimit.Filled(limit.DefaultQuestions()).Validate()),
	)
}

func (r *AccessReview) validate() error {
	if r == nil {
		return nil
	}
	var errs []error
	if r.Resource != "" && r.Path != "" {
		errs = append(errs, setting.Problemf("path", "cannot be set together with resource: a question is about one of them"))
	}
	if r.Path != "" && !strings.HasPrefix(r.Path, "/") {
		errs = append(errs, setting.Problemf("path", "%q does not begin with a slash", r.Path))
	}
	for key, value := range map[string]string{"group": r.Group, "subresource": r.Subresource, "namespace": r.Namespace, "name": r.Name} {
		if value != "" && r.Resource == "" {
			errs = append(errs, setting.Problemf(key, "has no effect without resource"))
		}
	}
	return errors.Join(errs...)
}
