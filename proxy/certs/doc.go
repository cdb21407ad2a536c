// Package certs owns the TLS side of a listener: the certificate that it shows,
// the authorities that client certificates are verified with, and their
// revocation lists, all from files that can change while connections are open, and
// what is fetched: revocation lists and the answers of OCSP responders.
// It also reads a connection's state into the vocabulary of package authz.
//
// It does not open sockets, does not watch files, and does not decide whether a
// verified client may enter: that is authn/mtls and policy.
package certs
