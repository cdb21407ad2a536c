// Package jose takes signed and encrypted tokens apart, strictly (RFC 7515, RFC 7516),
// reads the keys that they are made with (RFC 7517) and checks one signature by one key
// and one algorithm. It owns what is a token's form, what is a sound key, and which
// algorithms there are.
//
// It is the only package that imports jwx, which parses keys, checks signatures and
// decrypts here and does nothing else: the library accepts much that a gateway must
// refuse, so each token is taken apart by this package first.
//
// It does not know what a token says, whom it is from, or where keys are had.
package jose
