package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	authorizationVersion = "authorization.k8s.io/v1"
	accessReviews        = "/apis/" + authorizationVersion + "/subjectaccessreviews"
)

// accessReview is SubjectAccessReview, as far as it is used here.
type accessReview struct {
	meta

	Spec   accessSpec    `json:"spec"`
	Status *accessStatus `json:"status,omitempty"`
}

type accessSpec struct {
	User     string              `json:"user"`
	UID      string              `json:"uid,omitempty"`
	Groups   []string            `json:"groups,omitempty"`
	Extra    map[string][]string `json:"extra,omitempty"`
	Resource *resourceAttributes `json:"resourceAttributes,omitempty"`
	Path     *pathAttributes     `json:"nonResourceAttributes,omitempty"`
}

type resourceAttributes struct {
	Namespace   string `json:"namespace,omitempty"`
	Verb        string `json:"verb"`
	Group       string `json:"group,omitempty"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource,omitempty"`
	Name        string `json:"name,omitempty"`
}

type pathAttributes struct {
	Path string `json:"path"`
	Verb string `json:"verb"`
}

type accessStatus struct {
	Allowed bool   `json:"allowed"`
	Denied  bool   `json:"denied"`
	Reason  string `json:"reason"`
	Error   string `json:"evaluationError"`
}

// act is what is different from request to request in a question about access.
type act struct{ verb, path string }

// actOf returns what r is about.
func (r *AccessReview) actOf(req *authn.Request) act {
	out := act{verb: r.Verb, path: r.Path}
	if out.verb == "" {
		out.verb = verbOf(req.Method, r.Resource != "")
	}
	if out.path == "" && r.Resource == "" {
		out.path = req.Path
	}
	return out
}

// verbOf returns the API's word for a method, as the API server itself translates it
// for requests of single objects. One that it has no word for stays what it is, and
// nobody is allowed it but by "*".
func verbOf(method string, resource bool) string {
	if resource {
		switch method {
		case "GET", "HEAD":
			return "get"
		case "POST":
			return "create"
		case "PUT":
			return "update"
		}
	}
	return strings.ToLower(method)
}

// spec returns the question about user.
func (r *AccessReview) spec(u *user, what act) accessSpec {
	out := accessSpec{User: u.Name, UID: u.UID, Groups: u.Groups, Extra: u.Extra}
	if r.Resource == "" {
		out.Path = &pathAttributes{Path: what.path, Verb: what.verb}
		return out
	}
	out.Resource = &resourceAttributes{
		Namespace: r.Namespace, Verb: what.verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource, Name: r.Name,
	}
	return out
}

// withAccess returns the caller's identity with what the API server says about this
// request. The identities of one token with one answer are one value, so that what is
// kept with an identity is kept here too.
func (a *Authenticator) withAccess(ctx context.Context, e *entry, token string, req *authn.Request) (*authz.Identity, error) {
	what, now := a.config.AccessReview.actOf(req), req.Now // the question may outlive the request
	key := what.verb + "\x00" + what.path + "\x00" + token
	if id, ok := a.access.Get(key, now); ok {
		return id, nil
	}
	return a.accessFlights.Ask(ctx, key, a.config.Timeout, func(ctx context.Context) (*authz.Identity, error) {
		s, err := a.reviewAccess(ctx, &e.user, what)
		a.asked(ctx, "access", accessOutcome(s, err))
		if err != nil {
			return nil, fmt.Errorf("%w: ask %s about access: %w", authn.ErrUnavailable, a.config.APIServer, err)
		}
		id := identityWith(e.identity, s)
		if until := earlier(now.Add(a.config.CacheMaxAge), e.until); now.Before(until) {
			a.access.Put(key, id, sizeOf(&e.user), until)
		}
		return id, nil
	})
}

func (a *Authenticator) reviewAccess(ctx context.Context, u *user, what act) (*accessStatus, error) {
	question := accessReview{meta: meta{authorizationVersion, "SubjectAccessReview"}, Spec: a.config.AccessReview.spec(u, what)}
	var answer accessReview
	if err := a.server.review(ctx, accessReviews, &question, &answer); err != nil {
		return nil, err
	}
	if err := answer.is(authorizationVersion, "SubjectAccessReview"); err != nil {
		return nil, err
	}
	s := answer.Status
	switch {
	case s == nil:
		return nil, fmt.Errorf("answer has no status")
	case s.Error != "" && !s.Allowed:
		// Not every authorizer could be asked: this no may not be one.
		return nil, fmt.Errorf("the authorizers report: %.200s", s.Error)
	case s.Allowed && s.Denied:
		return nil, fmt.Errorf("answer both allows and denies")
	}
	return s, nil
}

// identityWith returns id with the claim access. The value that others hold is left
// as it is.
func identityWith(id *authz.Identity, s *accessStatus) *authz.Identity {
	claims := maps.Clone(id.Claims)
	claims["access"] = map[string]any{"allowed": s.Allowed, "denied": s.Denied, "reason": s.Reason}
	return &authz.Identity{
		Authenticated: id.Authenticated, Authenticator: id.Authenticator, Kind: id.Kind, Subject: id.Subject, Issuer: id.Issuer,
		Audiences: id.Audiences, Claims: claims, ExpiresAt: id.ExpiresAt,
	}
}

func accessOutcome(s *accessStatus, err error) string {
	switch {
	case err != nil:
		return outcomeOf(err)
	case s.Allowed:
		return "allowed"
	}
	return "not_allowed"
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
