// Package keyring gets and keeps the newest good key set of an issuer (RFC 7517). It owns
// where the set is had, how often it is asked for, what happens while the issuer is down,
// and what a key that is not in it means: that there is none, or that nobody can say now.
//
// It does not know what the keys are used for.
package keyring
