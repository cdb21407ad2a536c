package outbound

import (
	"context"
	"fmt"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/grant"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/route"
)

// addAuthorization adds what sets Authorization, unless that is nothing or what the
// client sent.
func (s *Set) addAuthorization(r route.Config, deps Deps) error {
	a := &authorization{mode: r.UpstreamAuthorization}
	if r.TokenExchange != "" {
		if a.exchanger = deps.Exchanges[r.TokenExchange]; a.exchanger == nil {
			return fmt.Errorf("token_exchange: there is no exchange %q", r.TokenExchange)
		}
	}
	if r.ClientCredentials != "" {
		if a.credentials = deps.Credentials[r.ClientCredentials]; a.credentials == nil {
			return fmt.Errorf("client_credentials: there are none of name %q", r.ClientCredentials)
		}
	}
	s.exchanges = a.exchanger != nil
	var owned []string
	switch a.mode {
	case route.AuthorizationToken, route.AuthorizationExchange, route.AuthorizationClientCredentials:
		owned = []string{"authorization"}
	default:
		if a.exchanger == nil {
			return nil
		}
	}
	s.add(a, owned)
	return nil
}

// authorization is the route's upstream_authorization, and what a policy makes of
// it.
type authorization struct {
	mode        string
	exchanger   *grant.Exchanger
	credentials *grant.Credentials
}

// Headers returns the one Authorization header, or none.
func (a *authorization) Headers(ctx context.Context, o *judge.Outgoing) ([]authz.Header, error) {
	token, err := a.token(ctx, o)
	if err != nil || token == "" {
		return nil, err
	}
	return []authz.Header{{Name: "authorization", Value: "Bearer " + token}}, nil
}

func (a *authorization) token(ctx context.Context, o *judge.Outgoing) (string, error) {
	by := o.Decision.Upstream.TokenExchange
	switch {
	case by != nil || a.mode == route.AuthorizationExchange:
		return a.exchanger.Token(ctx, o.Caller.Token, o.Input.Identity, by)
	case a.mode == route.AuthorizationToken:
		return o.Caller.Token, nil
	case a.mode == route.AuthorizationClientCredentials:
		return a.credentials.Token(ctx)
	}
	return "", nil
}
