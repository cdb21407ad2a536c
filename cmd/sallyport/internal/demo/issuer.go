package demo

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"
)

// Issuer is a development token issuer: it signs whatever it is asked for. Its
// key is made at start and dies with the process.
type Issuer struct {
	url string
	key *rsa.PrivateKey
	kid string
}

// NewIssuer makes a key. url is the issuer claim of its tokens.
func NewIssuer(url string) (*Issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make the development key: %w", err)
	}
	sum := sha256.Sum256(key.N.Bytes())
	return &Issuer{url: url, key: key, kid: base64.RawURLEncoding.EncodeToString(sum[:8])}, nil
}

// Token signs an access token (RFC 9068) that is valid from now for life.
func (i *Issuer) Token(subject string, roles []string, now time.Time, life time.Duration) (string, error) {
	head, err := segment(map[string]any{"alg": "RS256", "typ": "at+jwt", "kid": i.kid})
	if err != nil {
		return "", err
	}
	claims, err := segment(map[string]any{
		"iss": i.url, "sub": subject, "aud": Audience, "client_id": "demo",
		"iat": now.Unix(), "exp": now.Add(life).Unix(), "jti": rand.Text(), "roles": roles,
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(head + "." + claims))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign a development token: %w", err)
	}
	return head + "." + claims + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

func segment(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode a development token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// KeySet returns the public half as a JWK set (RFC 7517).
func (i *Issuer) KeySet() ([]byte, error) {
	enc := base64.RawURLEncoding
	return json.MarshalIndent(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": i.kid,
		"n": enc.EncodeToString(i.key.N.Bytes()),
		"e": enc.EncodeToString(big.NewInt(int64(i.key.E)).Bytes()),
	}}}, "", "  ")
}

// Handler serves /token, the key set and the discovery document.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", i.serveToken)
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		keys, err := i.KeySet()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(keys) // the reader has gone
	})
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.url, "jwks_uri": i.url + "/jwks", "token_endpoint": i.url + "/token",
			"id_token_signing_alg_values_supported": []string{"RS256"},
			"response_types_supported":              []string{"token"},
			"subject_types_supported":               []string{"public"},
		}) // the reader has gone
	})
	return mux
}

func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	subject := q.Get("sub")
	if subject == "" {
		http.Error(w, "say who: /token?sub=alice&roles=reader", http.StatusBadRequest)
		return
	}
	roles := []string{}
	if list := q.Get("roles"); list != "" {
		roles = strings.Split(list, ",")
	}
	token, err := i.Token(subject, roles, time.Now(), time.Hour)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintln(w, token) //nolint:errcheck // the reader has gone
}
