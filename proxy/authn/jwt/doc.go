// Package jwt authenticates requests by JWT bearer tokens of one issuer (RFC
// 7519, RFC 9068). It owns the reading of the Authorization header, every check
// of a token, the issuer's key set with its rotation, and the cache of verified
// tokens.
//
// It is the only package that imports jwx, which parses keys and checks
// signatures here and does nothing else: the library accepts much that a gateway
// must refuse, so each token is taken apart by this package first, strictly.
//
// It does not issue tokens, does not ask the issuer about single tokens, and
// does not decide what a subject may do.
package jwt
