// Package oidc logs people in at an OpenID provider (OpenID Connect Core 1.0, by
// authorization code with PKCE as RFC 9700 wants it) and takes their session for a
// credential from then on. It owns the redirects and what protects them, the checks of
// what the provider says, renewal, and every way in which a session ends: logout here,
// at the provider, and by the provider's word over front and back channel.
//
// It does not keep sessions, which is for proxy/session, nor look at bearer tokens.
package oidc
