// Package jwt authenticates requests by JWT bearer tokens of one issuer (RFC
// 7519, RFC 9068). It owns the reading of the Authorization header, every check
// of a token, and the cache of verified tokens.
//
// What a token is made of, and how its signature is checked, is package jose's. The
// issuer's key set and its rotation are package keyring's.
//
// It does not issue tokens, does not ask the issuer about single tokens, and
// does not decide what a subject may do.
package jwt
