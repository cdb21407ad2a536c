package decisionlog

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/url"
	"strings"
)

// masker replaces secrets. Equal secrets get equal replacements for as long as the
// process runs, so that an auditor can tell whether two requests used the same
// credential; the key is random and never leaves the process, so that nobody can
// try out guesses. It belongs to one goroutine.
type masker struct {
	mac                    hash.Hash // keyed
	scratch                []byte    // of mac
	headers, query, claims *names
}

func newMasker(cfg MaskConfig) *masker {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	words := secretWords()
	headers, query, claims := foldedSet(cfg.Headers, secretHeaders()), foldedSet(cfg.Query, secretParameters()), foldedSet(cfg.Claims, secretClaims())
	return &masker{
		mac:     hmac.New(sha256.New, key),
		headers: newNames(func(name string) class { return headerClass(headers, words, name) }),
		query:   newNames(func(name string) class { return nameClass(query, words, name) }),
		claims:  newNames(func(name string) class { return nameClass(claims, nil, name) }),
	}
}

// secretHeaders are header names that always hold a credential and whose names do
// not say so by a word in secretWords.
func secretHeaders() []string {
	return []string{
		"dpop", "x-goog-iap-jwt-assertion", "x-amzn-oidc-data", "ocp-apim-subscription-key",
		"x-csrf", "x-xsrf", "x-hub-signature", "x-hub-signature-256",
	}
}

// secretParameters are names of query parameters, likewise.
func secretParameters() []string {
	return []string{
		"code", "state", "nonce", "key", "sig", "signature", "x-amz-signature", "x-goog-signature", "samlresponse",
		"samlrequest", "pwd", "pass", "passphrase", "otp", "pin", "auth", "sid", "ticket",
	}
}

// secretClaims are names of claims that are secrets. Words in names say less there:
// token_use and session_state are none.
func secretClaims() []string {
	return []string{"access-token", "refresh-token", "id-token", "client-secret", "password", "secret"}
}

// secretWords mark a name as one of a secret wherever they stand in it:
// x-auth-token, client_secret, set-cookie.
func secretWords() []string {
	return []string{
		"authorization", "cookie", "token", "secret", "password", "passwd", "api-key", "apikey", "access-key",
		"private-key", "credential", "session", "jwt", "assertion",
	}
}

// fold makes names comparable as servers do that fold case and underscores.
func fold(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

func foldedSet(lists ...[]string) map[string]struct{} {
	set := map[string]struct{}{}
	for _, list := range lists {
		for _, name := range list {
			set[fold(name)] = struct{}{}
		}
	}
	return set
}

// nameClass finds secrets: names of the set, and those with one of the words.
func nameClass(set map[string]struct{}, words []string, name string) class {
	folded := fold(name)
	if _, ok := set[folded]; ok {
		return secret
	}
	for _, word := range words {
		if strings.Contains(folded, word) {
			return secret
		}
	}
	return ordinary
}

func headerClass(set map[string]struct{}, words []string, name string) class {
	if nameClass(set, words, name) == secret {
		return secret
	}
	switch strings.ToLower(name) {
	case "referer", "location", "content-location", "link":
		return link
	}
	return ordinary
}

// header returns the value of a header as it may be written.
func (m *masker) header(name, value string) string {
	switch m.headers.class(name) {
	case secret:
		return m.hash(value)
	case link:
		return m.url(value)
	}
	return m.text(value)
}

// parameter returns the value of a query parameter as it may be written.
func (m *masker) parameter(name, value string) string {
	if m.query.class(name) == secret {
		return m.hash(value)
	}
	return m.text(value)
}

// text returns a value whose name says nothing: a token is still masked.
func (m *masker) text(value string) string {
	if holdsToken(value) {
		return m.hash(value)
	}
	return value
}

// holdsToken reports whether s has a JWT in it, or starts with the name of an
// authentication scheme. Of several beginnings of a JWT the first has most after
// it, so the others need no look.
func holdsToken(s string) bool {
	if i := strings.Index(s, "eyJ"); i >= 0 { // base64url of `{"`
		if rest := s[i:]; len(rest) > 20 && strings.Count(rest, ".") >= 2 {
			return true
		}
	}
	if s == "" || s[0]|0x20 != 'b' && s[0]|0x20 != 'd' {
		return false
	}
	scheme, credential, ok := strings.Cut(s, " ")
	return ok && credential != "" && (strings.EqualFold(scheme, "bearer") || strings.EqualFold(scheme, "basic") || strings.EqualFold(scheme, "dpop"))
}

// url masks the query and the fragment of a URL, and a password in it.
func (m *masker) url(raw string) string {
	rest, fragment, hasFragment := strings.Cut(raw, "#")
	base, query, hasQuery := strings.Cut(rest, "?")
	out := m.text(m.userinfo(base))
	if hasQuery {
		out += "?" + m.rawQuery(query)
	}
	if hasFragment {
		out += "#" + m.rawQuery(fragment)
	}
	return out
}

func (m *masker) userinfo(base string) string {
	start := strings.Index(base, "//")
	if start < 0 {
		return base
	}
	authority, path, _ := strings.Cut(base[start+2:], "/")
	i := strings.LastIndexByte(authority, '@')
	if i < 0 {
		return base
	}
	return base[:start+2] + m.hash(authority[:i]) + authority[i:] + "/" + path
}

// rawQuery masks the values of a query and leaves the rest as it was sent.
func (m *masker) rawQuery(raw string) string {
	if m.ordinaryQuery(raw) {
		return raw
	}
	var out strings.Builder
	for i, pair := range strings.Split(raw, "&") {
		if i > 0 {
			out.WriteByte('&')
		}
		name, value, found := strings.Cut(pair, "=")
		out.WriteString(m.text(name))
		if found {
			out.WriteByte('=')
			// The decoded value is hashed, as in query, so that the two can be joined.
			if masked, ok := m.secretValue(name, value); ok {
				value = masked
			}
			out.WriteString(value)
		}
	}
	return out.String()
}

// ordinaryQuery reports whether rawQuery has nothing to mask, as is usual.
func (m *masker) ordinaryQuery(raw string) bool {
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if holdsToken(name) || m.query.class(unescape(name)) == secret || holdsToken(unescape(value)) {
			return false
		}
	}
	return true
}

// secretValue returns what to write for a value as it was sent, if that is masked.
func (m *masker) secretValue(name, value string) (string, bool) {
	decoded := unescape(value)
	masked := m.parameter(unescape(name), decoded)
	return masked, masked != decoded
}

// path masks the segments of a path that are tokens or that a route captured under
// the name of a secret, as "token" in /reset/{token}.
func (m *masker) path(path string, captured []pair) string {
	if len(captured) == 0 && !strings.ContainsAny(path, "% ") && !strings.Contains(path, "eyJ") {
		return path // nothing to decode, no scheme before a credential, no JWT
	}
	segments := strings.Split(path, "/")
	for i, raw := range segments {
		if s, err := url.PathUnescape(raw); err == nil {
			if masked := m.segment(s, captured); masked != s {
				segments[i] = masked
			}
		}
	}
	return strings.Join(segments, "/")
}

// captured returns the parameters of a route if one of them is a secret by its name.
func (m *masker) captured(params []pair) []pair {
	for _, p := range params {
		if m.query.class(p.name) == secret {
			return params
		}
	}
	return nil
}

func (m *masker) segment(segment string, captured []pair) string {
	for _, p := range captured {
		if p.value == segment && m.query.class(p.name) == secret {
			return m.hash(segment)
		}
	}
	return m.text(segment)
}

// hash replaces a secret. The empty string is none.
func (m *masker) hash(text string) string {
	if text == "" {
		return ""
	}
	m.scratch = append(m.scratch[:0], text...)
	m.mac.Reset()
	m.mac.Write(m.scratch)
	sum := m.mac.Sum(m.scratch[:0])
	m.scratch = hex.AppendEncode(append(sum, "hmac:"...), sum[:12])
	return string(m.scratch[len(sum):])
}

func unescape(s string) string {
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}
