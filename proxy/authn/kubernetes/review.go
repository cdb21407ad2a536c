package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	authenticationVersion = "authentication.k8s.io/v1"
	tokenReviews          = "/apis/" + authenticationVersion + "/tokenreviews"
)

// meta says what an object is.
type meta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// is checks that an answer is what was asked for: not every JSON object that arrives
// with status 200 is from an API server.
func (m meta) is(version, kind string) error {
	if m.APIVersion != version || m.Kind != kind {
		return fmt.Errorf("answer is %.64q %.64q, not %s %s", m.APIVersion, m.Kind, version, kind)
	}
	return nil
}

// tokenReview is the object of that name, as far as it is used here.
type tokenReview struct {
	meta

	Spec struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences"`
	} `json:"spec"`
	Status *tokenStatus `json:"status,omitempty"`
}

type tokenStatus struct {
	Authenticated bool     `json:"authenticated"`
	User          user     `json:"user"`
	Audiences     []string `json:"audiences"`
	Error         string   `json:"error"`
}

// user is UserInfo of a TokenReview and, member by member, of the spec of a
// SubjectAccessReview.
type user struct {
	Name   string              `json:"username"`
	UID    string              `json:"uid"`
	Groups []string            `json:"groups"`
	Extra  map[string][]string `json:"extra"`
}

// reviewToken asks whose token it is. An error that is authn.ErrInvalid is the API
// server's no; any other, that there is no answer.
func (a *Authenticator) reviewToken(ctx context.Context, token string) (*tokenStatus, error) {
	question := tokenReview{meta: meta{authenticationVersion, "TokenReview"}}
	question.Spec.Token, question.Spec.Audiences = token, a.config.Audiences
	var answer tokenReview
	if err := a.server.review(ctx, tokenReviews, &question, &answer); err != nil {
		return nil, err
	}
	if err := answer.is(authenticationVersion, "TokenReview"); err != nil {
		return nil, err
	}
	s := answer.Status
	switch {
	case s == nil:
		return nil, fmt.Errorf("answer has no status")
	case !s.Authenticated:
		return nil, fmt.Errorf("%w: the API server does not accept the token: %.200s", authn.ErrInvalid, s.Error)
	case !slices.ContainsFunc(s.Audiences, a.ourAudience):
		// An API server that knows no audiences leaves them out, and a token is then
		// good for the API server itself.
		return nil, fmt.Errorf("%w: the API server confirms audiences %.64q, none of which is in audiences", authn.ErrInvalid, s.Audiences)
	}
	return s, nil
}

const accountPrefix = "system:serviceaccount:"

// identityOf returns the identity of a confirmed token.
func (a *Authenticator) identityOf(s *tokenStatus, expires time.Time) (*authz.Identity, error) {
	namespace, name, ok := accountOf(s.User.Name)
	if !ok {
		return nil, fmt.Errorf("%w: the token is of %.64q and not of a service account", authn.ErrInvalid, s.User.Name)
	}
	claims := map[string]any{"namespace": namespace, "serviceaccount": name, "uid": s.User.UID, "groups": list(s.User.Groups)}
	for key, claim := range extraClaims() {
		if values := s.User.Extra["authentication.kubernetes.io/"+key]; len(values) == 1 {
			claims[claim] = values[0]
		}
	}
	return &authz.Identity{
		Authenticated: true, Authenticator: a.name, Kind: Kind, Subject: s.User.Name, Issuer: a.config.APIServer,
		Audiences: s.Audiences, Claims: claims, ExpiresAt: expires,
	}, nil
}

// extraClaims are what the API server knows of the pod that a token is bound to, and
// how claims call it.
func extraClaims() map[string]string {
	return map[string]string{ //nolint:gosec // names, no credentials
		"pod-name": "pod", "pod-uid": "pod_uid", "node-name": "node", "node-uid": "node_uid", "credential-id": "credential_id",
	}
}

func accountOf(username string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(username, accountPrefix)
	namespace, name, cut := strings.Cut(rest, ":")
	return namespace, name, ok && cut && namespace != "" && name != "" && !strings.Contains(name, ":")
}

func list(values []string) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}
