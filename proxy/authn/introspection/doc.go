// Package introspection authenticates requests by bearer tokens that say nothing by
// themselves: the provider that issued them is asked (RFC 7662). It owns the question
// and who asks it, the reading of the answer in its three forms, how long an answer
// counts, and how many questions may be under way.
//
// The answer may be a JWT (RFC 9701, or the access token in another form, as with
// phantom tokens). It is verified by proxy/authn/jwt and left for what goes on to the
// upstream.
//
// It does not issue tokens, and does not check what a route requires of an identity:
// that is done for each request, also where the answer came from the cache.
package introspection
