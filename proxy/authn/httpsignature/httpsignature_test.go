package httpsignature

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/redis"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

// TestAlgorithms: each key signs with its one algorithm, and what is signed with it is
// who it says.
func TestAlgorithms(t *testing.T) {
	for _, alg := range algorithms() {
		s, other := newTestSigner(t, "k1", alg), newTestSigner(t, "k1", alg)
		a := newTest(t, nil, s)
		r := s.request(t, "sig1", s.order())
		id, err := a.Authenticate(t.Context(), r)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		want := &authz.Identity{
			Authenticated: true, Authenticator: "partners", Kind: "http_signature", Subject: "owner of k1", Scopes: []string{"orders:write"},
			Claims: map[string]any{
				"groups": []any{"partners"}, "limit": json.Number("10"), "key_id": "k1", "algorithm": alg,
				"components": []any{"@method", "@authority", "@path", "@query"},
			},
		}
		if d := cmp.Diff(want, id, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".memo" }, cmp.Ignore())); d != "" {
			t.Errorf("%s: %s", alg, d)
		}
		if spent, _ := r.Spent(); !cmp.Equal(spent, a.CredentialHeaders()) {
			t.Errorf("spent %q, hidden %q", spent, a.CredentialHeaders())
		}
		again, err := a.Authenticate(t.Context(), s.request(t, "sig2", s.order()))
		if err != nil || again != id {
			t.Errorf("%s: the next request has an identity of its own: %v, %v", alg, again, err)
		}
		if _, err := a.Authenticate(t.Context(), other.request(t, "sig1", other.order())); !errors.Is(err, authn.ErrSignature) {
			t.Errorf("%s, signed by another key: %v", alg, err)
		}
	}
}

// TestOneAlgorithm: a key is good for its own algorithm alone, and a signature has one
// length.
func TestOneAlgorithm(t *testing.T) {
	for _, alg := range algorithms() {
		s := newTestSigner(t, "k1", alg)
		k := (*newTest(t, nil, s).keys.Load())["k1"]
		sum := s.sum(t, "base")
		for _, other := range append(algorithms(), "") {
			if got := verifySignature(other, k.material, []byte("base"), sum); got != (other == alg) {
				t.Errorf("key for %s, %s: verified is %v", alg, other, got)
			}
		}
		for _, bad := range [][]byte{nil, sum[1:], sum[:len(sum)-1], append(slices.Clip(sum), 0), append([]byte{0}, sum...), slices.Insert(slices.Clone(sum), len(sum)/2, 0)} {
			if verifySignature(alg, k.material, []byte("base"), bad) {
				t.Errorf("%s: a signature of %d bytes is verified", alg, len(bad))
			}
		}
	}
}

// TestAccepted: other ways to say the same.
func TestAccepted(t *testing.T) {
	s := newTestSigner(t, "k1", edwards)
	for name, change := range map[string]func(*signed){
		"target-uri":       func(o *signed) { o.components = `"@method" "@target-uri"` },
		"request-target":   func(o *signed) { o.components = `"@authority" "@request-target" "@method"` },
		"more":             func(o *signed) { o.components += ` "@scheme" "x-tenant"` },
		"alg of the key":   func(o *signed) { o.parameters += `;alg="ed25519"` },
		"expires later":    func(o *signed) { o.parameters += fmt.Sprintf(`;expires=%d`, testNow.Unix()+1) },
		"expired a moment": func(o *signed) { o.parameters += fmt.Sprintf(`;expires=%d`, testNow.Unix()) },
		"signed body": func(o *signed) {
			o.body = "{}"
			o.components += ` "content-digest"`
		},
		"digest of nothing": func(o *signed) {
			o.components += ` "content-digest"`
			o.values["content-digest"] = digestOf("")
			o.header = []authz.Header{{Name: "content-digest", Value: digestOf("")}}
		},
		"two digests": func(o *signed) {
			o.components += ` "content-digest"`
			o.values["content-digest"] = "md5=:AAAA:, " + digestOf("")
			o.header = []authz.Header{{Name: "content-digest", Value: "md5=:AAAA:, " + digestOf("")}}
		},
		"spaces around a field": func(o *signed) {
			o.components += ` "x-note"`
			o.values["x-note"] = "a  b"
			o.header = []authz.Header{{Name: "x-note", Value: " a  b\t"}}
		},
	} {
		o := s.order()
		change(&o)
		if _, err := newTest(t, nil, s).Authenticate(t.Context(), s.request(t, "sig1", o)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRefused: every request is signed by the right key, unless it says otherwise, and
// wrong in one thing.
func TestRefused(t *testing.T) {
	s, other := newTestSigner(t, "k1", edwards), newTestSigner(t, "k2", edwards)
	at := func(created int64) string { return fmt.Sprintf(`;created=%d;keyid="k1"`, created) }
	now := testNow.Unix()
	base := fmt.Sprintf(`;created=%d;keyid="k1"`, now)
	for name, tt := range map[string]struct {
		order   func(*signed)
		request func(*authn.Request)
		want    error
		says    string
	}{
		"other method":     {nil, func(r *authn.Request) { r.Method = "DELETE" }, authn.ErrSignature, ""},
		"other path":       {nil, func(r *authn.Request) { r.Path = "/orders/2" }, authn.ErrSignature, ""},
		"other query":      {nil, func(r *authn.Request) { r.RawQuery = "a=2&b=%20" }, authn.ErrSignature, ""},
		"query cut off":    {nil, func(r *authn.Request) { r.RawQuery = "" }, authn.ErrSignature, ""},
		"query reordered":  {nil, func(r *authn.Request) { r.RawQuery = "b=%20&a=1" }, authn.ErrSignature, ""},
		"other host":       {nil, func(r *authn.Request) { r.Host = "evil.example.com" }, authn.ErrSignature, ""},
		"other port":       {nil, func(r *authn.Request) { r.Host = "api.example.com:8443" }, authn.ErrSignature, ""},
		"http port":        {nil, func(r *authn.Request) { r.Host = "api.example.com:80" }, authn.ErrSignature, ""},
		"other scheme":     {func(o *signed) { o.components += ` "@scheme"` }, func(r *authn.Request) { r.Scheme, r.Host = "http", "api.example.com" }, authn.ErrSignature, ""},
		"other target-uri": {func(o *signed) { o.components = `"@method" "@target-uri"` }, func(r *authn.Request) { r.Path = "/x" }, authn.ErrSignature, ""},
		"other field":      {func(o *signed) { o.components += ` "x-tenant"` }, func(r *authn.Request) { set(r, "x-tenant", "evil") }, authn.ErrSignature, ""},
		"field gone":       {func(o *signed) { o.components += ` "x-tenant"` }, func(r *authn.Request) { r.Headers = r.Headers[2:] }, authn.ErrInvalid, "not in the request"},
		"field twice": {
			func(o *signed) { o.components += ` "x-tenant"`; o.values["x-tenant"] = "acme, acme" },
			func(r *authn.Request) { r.Headers = append(r.Headers, authz.Header{Name: "x-tenant", Value: "acme"}) },
			authn.ErrInvalid, "stands twice",
		},
		"field not ASCII": {
			func(o *signed) { o.components += ` "x-tenant"`; o.values["x-tenant"] = "ä" },
			func(r *authn.Request) { set(r, "x-tenant", "ä") }, authn.ErrInvalid, "cannot be signed",
		},
		"line break in a field": {
			func(o *signed) { o.components += ` "x-tenant"`; o.values["x-tenant"] = "a\n\"x-admin\": 1" },
			func(r *authn.Request) { set(r, "x-tenant", "a\n\"x-admin\": 1") }, authn.ErrInvalid, "cannot be signed",
		},

		"no method":          {func(o *signed) { o.components = `"@authority" "@path" "@query"` }, nil, authn.ErrInvalid, "does not cover @method"},
		"no authority":       {func(o *signed) { o.components = `"@method" "@path" "@query"` }, nil, authn.ErrInvalid, "does not cover @authority"},
		"no path":            {func(o *signed) { o.components = `"@method" "@authority" "@query"` }, nil, authn.ErrInvalid, "does not cover @path"},
		"no query":           {func(o *signed) { o.components = `"@method" "@authority" "@path"` }, nil, authn.ErrInvalid, "does not cover @query"},
		"request-target":     {func(o *signed) { o.components = `"@method" "@request-target"` }, nil, authn.ErrInvalid, "does not cover @authority"},
		"nothing":            {func(o *signed) { o.components = `` }, nil, authn.ErrInvalid, "does not cover"},
		"a field as @method": {func(o *signed) { o.components = `"method" "@target-uri"` }, nil, authn.ErrInvalid, "does not cover @method"},
		"one parameter":      {func(o *signed) { o.components = `"@method" "@authority" "@path" "@query-param";name="a"` }, nil, authn.ErrInvalid, "does not cover @query"},

		"no created":         {func(o *signed) { o.parameters = `;keyid="k1"` }, nil, authn.ErrInvalid, "no time of creation"},
		"too old":            {func(o *signed) { o.parameters = at(now - 331) }, nil, authn.ErrExpired, ""},
		"from the future":    {func(o *signed) { o.parameters = at(now + 31) }, nil, authn.ErrNotYetValid, ""},
		"created not a time": {func(o *signed) { o.parameters = fmt.Sprintf(`;created="%d";keyid="k1"`, now) }, nil, authn.ErrMalformed, "created"},
		"created decimal":    {func(o *signed) { o.parameters = fmt.Sprintf(`;created=%d.5;keyid="k1"`, now) }, nil, authn.ErrMalformed, "created"},
		"created negative":   {func(o *signed) { o.parameters = `;created=-1;keyid="k1"` }, nil, authn.ErrMalformed, "created"},
		"created twice":      {func(o *signed) { o.parameters = at(now-1000) + fmt.Sprintf(`;created=%d`, now) }, nil, authn.ErrMalformed, "parameter stands twice"},
		"expired":            {func(o *signed) { o.parameters = base + fmt.Sprintf(`;expires=%d`, now-30) }, nil, authn.ErrInvalid, "expires before"},
		"expired later":      {func(o *signed) { o.parameters = at(now-100) + fmt.Sprintf(`;expires=%d`, now-30) }, nil, authn.ErrExpired, ""},
		"no keyid":           {func(o *signed) { o.parameters = fmt.Sprintf(`;created=%d`, now) }, nil, authn.ErrInvalid, "no keyid"},
		"unknown keyid":      {func(o *signed) { o.parameters = fmt.Sprintf(`;created=%d;keyid="k3"`, now) }, nil, authn.ErrForeign, ""},
		"key of another":     {func(o *signed) { o.parameters = fmt.Sprintf(`;created=%d;keyid="k2"`, now) }, nil, authn.ErrSignature, ""},
		"other alg":          {func(o *signed) { o.parameters = base + `;alg="hmac-sha256"` }, nil, authn.ErrSignature, ""},
		"alg a token":        {func(o *signed) { o.parameters = base + `;alg=ed25519` }, nil, authn.ErrMalformed, "alg"},
		"unknown parameter":  {func(o *signed) { o.parameters = base + `;x=1` }, nil, authn.ErrMalformed, "not known"},
		"empty nonce":        {func(o *signed) { o.parameters = base + `;nonce=""` }, nil, authn.ErrInvalid, "nonce"},
		"a tag":              {func(o *signed) { o.parameters = base + `;tag="x"` }, nil, authn.ErrForeign, ""},
		"an empty tag":       {func(o *signed) { o.parameters = base + `;tag=""` }, nil, authn.ErrForeign, ""},

		"component twice":  {func(o *signed) { o.components += ` "@path"` }, nil, authn.ErrMalformed, "twice"},
		"upper case":       {func(o *signed) { o.components += ` "X-Tenant"` }, nil, authn.ErrMalformed, "lower-case"},
		"token":            {func(o *signed) { o.components += ` x-tenant` }, nil, authn.ErrMalformed, "not a string"},
		"status":           {func(o *signed) { o.components += ` "@status"` }, nil, authn.ErrMalformed, "@status"},
		"unknown derived":  {func(o *signed) { o.components += ` "@body"` }, nil, authn.ErrMalformed, "@body"},
		"signature-params": {func(o *signed) { o.components += ` "@signature-params"` }, nil, authn.ErrMalformed, "@signature-params"},
		"itself":           {func(o *signed) { o.components += ` "signature"` }, nil, authn.ErrMalformed, "cannot be covered"},
		"sf":               {func(o *signed) { o.components += ` "x-tenant";sf` }, nil, authn.ErrMalformed, `"sf", which is not supported`},
		"bs":               {func(o *signed) { o.components += ` "x-tenant";bs` }, nil, authn.ErrMalformed, `"bs", which is not supported`},
		"key":              {func(o *signed) { o.components += ` "x-tenant";key="a"` }, nil, authn.ErrMalformed, `"key", which is not supported`},
		"tr":               {func(o *signed) { o.components += ` "x-tenant";tr` }, nil, authn.ErrMalformed, `"tr", which is not supported`},
		"req":              {func(o *signed) { o.components += ` "@method";req` }, nil, authn.ErrMalformed, `"req", which is not supported`},
		"name of a field":  {func(o *signed) { o.components += ` "x-tenant";name="a"` }, nil, authn.ErrMalformed, "not supported"},
		"no name":          {func(o *signed) { o.components += ` "@query-param"` }, nil, authn.ErrMalformed, "no parameter name"},

		"unsigned body":   {nil, func(r *authn.Request) { r.Body = bodyOf("{}") }, authn.ErrInvalid, "does not cover the body"},
		"body added":      {func(o *signed) { o.components += ` "content-digest"`; o.body = "{}" }, func(r *authn.Request) { r.Body = bodyOf("{} ") }, authn.ErrInvalid, "not the digest"},
		"body taken away": {func(o *signed) { o.components += ` "content-digest"`; o.body = "{}" }, func(r *authn.Request) { r.Body = nil }, authn.ErrInvalid, "not the digest"},
		"other digest":    {func(o *signed) { o.components += ` "content-digest"`; o.body = "{}" }, func(r *authn.Request) { set(r, "content-digest", digestOf("x")); r.Body = bodyOf("x") }, authn.ErrSignature, ""},

		"no signature":           {nil, func(r *authn.Request) { r.Headers = r.Headers[:len(r.Headers)-1] }, authn.ErrMalformed, "different labels"},
		"no input":               {nil, func(r *authn.Request) { r.Headers = slices.Delete(r.Headers, 2, 3) }, authn.ErrForeign, "without signature-input"},
		"two inputs":             {nil, func(r *authn.Request) { r.Headers = append(r.Headers, r.Headers[2]) }, authn.ErrMalformed, "stands twice"},
		"two values":             {nil, func(r *authn.Request) { r.Headers = append(r.Headers, r.Headers[3]) }, authn.ErrMalformed, "stands twice"},
		"label twice":            {nil, func(r *authn.Request) { set(r, "signature-input", r.Headers[2].Value+", "+r.Headers[2].Value) }, authn.ErrMalformed, "label stands twice"},
		"value twice":            {nil, func(r *authn.Request) { set(r, "signature", r.Headers[3].Value+", "+r.Headers[3].Value) }, authn.ErrMalformed, "label stands twice"},
		"other label":            {nil, func(r *authn.Request) { set(r, "signature", strings.Replace(r.Headers[3].Value, "sig1", "sig2", 1)) }, authn.ErrMalformed, "has no value"},
		"empty":                  {nil, func(r *authn.Request) { set(r, "signature-input", ""); set(r, "signature", "") }, authn.ErrMalformed, "is empty"},
		"no list":                {nil, func(r *authn.Request) { set(r, "signature-input", `sig1="a"`) }, authn.ErrMalformed, "not a list"},
		"text value":             {nil, func(r *authn.Request) { set(r, "signature", `sig1="a"`) }, authn.ErrMalformed, "not a byte sequence"},
		"list value":             {nil, func(r *authn.Request) { set(r, "signature", `sig1=(:AA==:)`) }, authn.ErrMalformed, "not a byte sequence"},
		"parameter of the value": {nil, func(r *authn.Request) { set(r, "signature", r.Headers[3].Value+";a") }, authn.ErrMalformed, "not a byte sequence"},
		"too long":               {nil, func(r *authn.Request) { set(r, "signature", "sig1=:"+strings.Repeat("AAAA", 400)+":") }, authn.ErrMalformed, "not a byte sequence"},
		"field too long":         {nil, func(r *authn.Request) { set(r, "signature", "sig1=:"+strings.Repeat("AAAA", 5000)+":") }, authn.ErrMalformed, "longer than"},
		"line end":               {nil, func(r *authn.Request) { set(r, "signature-input", r.Headers[2].Value+"\r\n") }, authn.ErrMalformed, ""},
		"not base64":             {nil, func(r *authn.Request) { set(r, "signature", "sig1=:%%:") }, authn.ErrMalformed, ""},
	} {
		o := s.order()
		if tt.order != nil {
			tt.order(&o)
		}
		a := newTest(t, nil, s, other)
		r := s.request(t, "sig1", o)
		if tt.request != nil {
			tt.request(r)
		}
		_, err := a.Authenticate(t.Context(), r)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %v with %q", name, err, tt.want, tt.says)
		}
		if spent, _ := r.Spent(); len(spent) != 0 {
			t.Errorf("%s: spent %q", name, spent)
		}
	}
}

// TestNotMine: a request without a signature is somebody else's.
func TestNotMine(t *testing.T) {
	a := newTest(t, nil, newTestSigner(t, "k1", edwards))
	_, err := a.Authenticate(t.Context(), &authn.Request{Authorization: "Signature keyId=k1", Now: testNow})
	if !errors.Is(err, authn.ErrNotMine) || errors.Is(err, authn.ErrForeign) {
		t.Errorf("got %v", err)
	}
}

// TestAlgorithmConfusion: who knows a public key cannot sign with it as a secret, whatever
// the message says, and a secret file does not take one.
func TestAlgorithmConfusion(t *testing.T) {
	owner := newTestSigner(t, "k1", rsaPSS)
	a := newTest(t, nil, owner)
	for _, secret := range [][]byte{owner.pem(t), []byte(strings.TrimSpace(string(owner.pem(t))))} {
		forger := &signer{id: "k1", alg: hmacSHA256, private: secret}
		for _, alg := range []string{"", `;alg="hmac-sha256"`} {
			o := forger.order()
			o.parameters += alg
			if _, err := a.Authenticate(t.Context(), forger.request(t, "sig1", o)); !errors.Is(err, authn.ErrSignature) {
				t.Errorf("HMAC with a public key: %v", err)
			}
		}
	}
	weak := &signer{id: "k1", alg: rsaPKCS1, private: owner.private}
	if _, err := a.Authenticate(t.Context(), weak.request(t, "sig1", weak.order())); !errors.Is(err, authn.ErrSignature) {
		t.Errorf("rsa-v1_5-sha256 that was not chosen: %v", err)
	}
	c := Default()
	c.Consumers = []Consumer{{Subject: "x", Keys: []Key{{KeyID: "k1", SecretFile: owner.key(t).PublicKeyFile}}}}
	if _, err := New("x", c, Deps{}); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Errorf("a public key as a secret: %v", err)
	}
}

// TestNonce: a nonce counts once for a key, until its signature is too old, and those
// that came last are not let in when the memory is full.
func TestNonce(t *testing.T) {
	s, other := newTestSigner(t, "k1", edwards), newTestSigner(t, "k2", edwards)
	a := newTest(t, func(c *Config) { c.Nonce = Nonce{Required: true, ReplayEntries: 3} }, s, other)
	try := func(s *signer, nonce string, now time.Time) error {
		o := s.order()
		o.parameters = fmt.Sprintf(`;created=%d;keyid="%s"`, now.Unix(), s.id) + nonce
		r := s.request(t, "sig1", o)
		r.Now = now
		_, err := a.Authenticate(t.Context(), r)
		return err
	}
	check := func(what string, err, want error, says string) {
		t.Helper()
		if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %v with %q", what, err, want, says)
		}
	}
	check("without", try(s, "", testNow), authn.ErrInvalid, "no nonce")
	check("first", try(s, `;nonce="a"`, testNow), nil, "")
	check("again", try(s, `;nonce="a"`, testNow), authn.ErrInvalid, "used before")
	check("in another second", try(s, `;nonce="a"`, testNow.Add(time.Second)), authn.ErrInvalid, "used before")
	check("of another key", try(other, `;nonce="a"`, testNow), nil, "")
	next := newTest(t, func(c *Config) { c.Nonce = Nonce{Required: true, ReplayEntries: 3} }, s, other)
	next.Inherit(a)
	*a = Authenticator{}
	a = next
	check("after a reload", try(s, `;nonce="a"`, testNow), authn.ErrInvalid, "used before")
	check("third", try(s, `;nonce="b"`, testNow), nil, "")
	check("fourth", try(s, `;nonce="c"`, testNow), authn.ErrUnavailable, "full")
	later := testNow.Add(a.config.MaxAge + a.config.Leeway + time.Second)
	check("later", try(s, `;nonce="a"`, later), nil, "")
	check("there is room again", try(s, `;nonce="b"`, later), nil, "")
	check("as much as there was", try(s, `;nonce="c"`, later), nil, "")
	check("and no more", try(s, `;nonce="d"`, later), authn.ErrUnavailable, "full")
	patient := newTest(t, func(c *Config) { c.MaxAge = time.Hour }, s, other)
	patient.Inherit(a)
	a = patient
	check("what was forgotten, when signatures may be older", try(s, `;nonce="b"`, testNow), authn.ErrExpired, "")
}

// TestNonceShares: a key that has used up its share gets 429, what it used counts once all
// the same, and another key notices nothing.
func TestNonceShares(t *testing.T) {
	greedy, modest := newTestSigner(t, "k1", edwards), newTestSigner(t, "k2", edwards)
	a := newTest(t, func(c *Config) { c.Nonce.ReplayEntriesPerKey = 2 }, greedy, modest)
	for i, step := range []struct {
		who   *signer
		nonce string
		want  error
	}{
		{greedy, "a", nil},
		{greedy, "b", nil},
		{greedy, "c", authn.ErrTooMany},
		{greedy, "a", authn.ErrInvalid},
		{modest, "a", nil},
		{modest, "b", nil},
	} {
		o := step.who.order()
		o.parameters += `;nonce="` + step.nonce + `"`
		_, err := a.Authenticate(t.Context(), step.who.request(t, "sig1", o))
		tooMany := (*authn.TooManyError)(nil)
		if !errors.Is(err, step.want) || errors.As(err, &tooMany) != errors.Is(step.want, authn.ErrTooMany) || tooMany != nil && tooMany.RetryAfter <= 0 {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
}

// TestNoncesOfOneRequest count together: what was not remembered whole was not used.
func TestNoncesOfOneRequest(t *testing.T) {
	s := newTestSigner(t, "k1", edwards)
	a := newTest(t, func(c *Config) { c.Nonce.ReplayEntries = 1 }, s)
	one, other := s.order(), s.order()
	one.parameters += `;nonce="a"`
	other.parameters += `;nonce="b"`
	both := s.request(t, "sig1", one)
	input, value := s.fields(t, "sig2", other)
	set(both, fieldInput, both.Header(fieldInput)+", "+input)
	set(both, fieldSignature, both.Header(fieldSignature)+", "+value)
	if _, err := a.Authenticate(t.Context(), both); !errors.Is(err, authn.ErrUnavailable) {
		t.Fatalf("two nonces where there is room for one: %v, want ErrUnavailable", err)
	}
	if _, err := a.Authenticate(t.Context(), s.request(t, "sig1", one)); err != nil {
		t.Errorf("one of them afterwards: %v", err)
	}
	if _, err := a.Authenticate(t.Context(), both); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("both once one was used: %v, want ErrInvalid", err)
	}
}

// TestNonceReplicas: a nonce that one replica took is refused by the other. While Redis is
// away nobody knows, which is no replay and 503.
func TestNonceReplicas(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.ByPassword)
	password := server.File("password", redistest.Password+"\n")
	s := newTestSigner(t, "k1", edwards)
	shared := func(c *Config) {
		c.Nonce.ReplayRedis = &redis.Config{Server: redis.Server{Address: server.Address, PasswordFile: password}, Timeout: 5 * time.Second}
	}
	a, b := newTest(t, shared, s), newTest(t, shared, s)
	show := func(at *Authenticator, nonce string) error {
		o := s.order()
		o.parameters += nonce
		_, err := at.Authenticate(t.Context(), s.request(t, "sig1", o))
		return err
	}
	until := func(at *Authenticator, nonce string) error {
		return redistest.Retry(func() error { return show(at, nonce) }, authn.ErrUnavailable)
	}
	if err := show(a, `;nonce="one"`); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]*Authenticator{"one replica": a, "the other": b} {
		if err := show(at, `;nonce="one"`); !errors.Is(err, authn.ErrInvalid) || !strings.Contains(err.Error(), "used before") {
			t.Errorf("again at %s: %v, want ErrInvalid", name, err)
		}
	}
	server.Kill()
	for range 2 {
		if err := show(a, `;nonce="two"`); !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
			t.Errorf("without Redis: %v, want ErrUnavailable", err)
		}
	}
	if err := show(a, ""); err != nil {
		t.Errorf("a signature without a nonce, without Redis: %v", err)
	}
	server.Restart()
	if err := until(a, `;nonce="two"`); err != nil {
		t.Errorf("once Redis is back: %v", err)
	}
	if err := until(b, `;nonce="two"`); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("at the other, once Redis is back: %v, want ErrInvalid", err)
	}
	redistest.ReadsPassword(t, a, password)
}

// TestBadSignatureKeepsNonce: who cannot sign cannot spend the nonces of who can.
func TestBadSignatureKeepsNonce(t *testing.T) {
	s := newTestSigner(t, "k1", edwards)
	a := newTest(t, nil, s)
	o := s.order()
	o.parameters += `;nonce="a"`
	o.components += ` "content-digest"`
	o.body = "{}"
	for _, change := range []func(*authn.Request){
		func(r *authn.Request) { r.Path = "/x" },
		func(r *authn.Request) { r.Body = bodyOf("x") },
	} {
		r := s.request(t, "sig1", o)
		change(r)
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
			t.Fatalf("got %v", err)
		}
	}
	if _, err := a.Authenticate(t.Context(), s.request(t, "sig1", o)); err != nil {
		t.Errorf("the good one after that: %v", err)
	}
}

// TestSeveral: of several signatures all must be good and of one consumer, unless label
// or tag say which one counts.
func TestSeveral(t *testing.T) {
	s, other, stranger := newTestSigner(t, "k1", edwards), newTestSigner(t, "k2", edwards), newTestSigner(t, "k3", edwards)
	forger := &signer{id: "k1", alg: edwards, private: stranger.private}
	both := func(second *signer, tag string) *authn.Request {
		r := s.request(t, "sig1", s.order())
		o := second.order()
		o.parameters += tag
		input, value := second.fields(t, "proxy", o)
		set(r, "signature-input", r.Headers[2].Value+", "+input)
		set(r, "signature", r.Headers[3].Value+", "+value)
		return r
	}
	for name, tt := range map[string]struct {
		second *signer
		tag    string
		change func(*Config)
		who    string
		want   error
	}{
		"both good":              {s, "", nil, "owner of k1", nil},
		"second bad":             {forger, "", nil, "", authn.ErrSignature},
		"second unknown":         {stranger, "", nil, "", authn.ErrForeign},
		"second of another":      {other, "", nil, "", authn.ErrInvalid},
		"first chosen":           {forger, "", func(c *Config) { c.Label = "sig1" }, "owner of k1", nil},
		"second chosen":          {other, "", func(c *Config) { c.Label = "proxy" }, "owner of k2", nil},
		"bad one chosen":         {forger, "", func(c *Config) { c.Label = "proxy" }, "", authn.ErrSignature},
		"none chosen":            {other, "", func(c *Config) { c.Label = "sig3" }, "", authn.ErrForeign},
		"second for another use": {forger, `;tag="x"`, nil, "owner of k1", nil},
		"second by its tag":      {other, `;tag="x"`, func(c *Config) { c.Tag = "x" }, "owner of k2", nil},
		"bad one by its tag":     {forger, `;tag="x"`, func(c *Config) { c.Tag = "x" }, "", authn.ErrSignature},
		"no such tag":            {other, `;tag="x"`, func(c *Config) { c.Tag = "y" }, "", authn.ErrForeign},
		"too many":               {s, "", func(c *Config) { c.MaxSignatures = 1 }, "", authn.ErrMalformed},
	} {
		id, err := newTest(t, tt.change, s, other).Authenticate(t.Context(), both(tt.second, tt.tag))
		if !errors.Is(err, tt.want) || err == nil && id.Subject != tt.who {
			t.Errorf("%s: got %v, %v, want %q, %v", name, id, err, tt.who, tt.want)
		}
	}
}

// TestBodies: what cannot be compared is refused, and is forwarded only where the
// configuration says so.
func TestBodies(t *testing.T) {
	s := newTestSigner(t, "k1", edwards)
	withDigest := func(header string) func() *authn.Request {
		return func() *authn.Request {
			o := s.order()
			o.components += ` "content-digest"`
			o.values["content-digest"] = header
			o.header = []authz.Header{{Name: "content-digest", Value: header}}
			r := s.request(t, "sig1", o)
			r.Body = bodyOf("{}")
			return r
		}
	}
	with := func(b *fixedBody) func() *authn.Request {
		return func() *authn.Request {
			r := withDigest(digestOf("{}"))()
			r.Body = b
			return r
		}
	}
	bare := func(b *fixedBody) func() *authn.Request {
		return func() *authn.Request {
			r := s.request(t, "sig1", s.order())
			r.Body = b
			return r
		}
	}
	sum := base64.StdEncoding.EncodeToString(make([]byte, 32))
	long, unsignedBody := func(c *Config) { c.InsecureUnverifiedBody = true }, func(c *Config) { c.InsecureUnsignedBody = true }
	for name, tt := range map[string]struct {
		request  func() *authn.Request
		change   func(*Config)
		want     error
		verified any // the claim
	}{
		"good":                    {with(bodyOf("{}")), nil, nil, true},
		"longer than is kept":     {with(&fixedBody{data: []byte("{}"), truncated: true}), nil, authz.ErrBodyTooLarge, nil},
		"the same, insecure":      {with(&fixedBody{data: []byte("{}"), truncated: true}), long, nil, false},
		"insecure, and all there": {with(bodyOf("x")), long, authn.ErrInvalid, nil},
		"cut off":                 {with(&fixedBody{err: authz.ErrBodyRead}), nil, authz.ErrBodyRead, nil},
		"unsigned, empty":         {bare(bodyOf("")), nil, nil, nil},
		"unsigned":                {bare(bodyOf("x")), nil, authn.ErrInvalid, nil},
		"unsigned, long":          {bare(&fixedBody{data: []byte("x"), truncated: true}), long, authn.ErrInvalid, nil},
		"unsigned, insecure":      {bare(bodyOf("x")), unsignedBody, nil, false},
		"signed all the same":     {with(bodyOf("x")), unsignedBody, authn.ErrInvalid, nil},
		"weak digest alone":       {withDigest("md5=:" + sum + ":"), nil, authn.ErrInvalid, nil},
		"one of two wrong":        {withDigest(digestOf("{}") + ", sha-512=:" + sum + ":"), nil, authn.ErrInvalid, nil},
		"digest twice":            {withDigest("sha-256=:" + sum + ":, " + digestOf("{}")), nil, authn.ErrInvalid, nil},
		"digest as text":          {withDigest(`sha-256="` + sum + `"`), nil, authn.ErrInvalid, nil},
		"digest as list":          {withDigest(`sha-256=(:` + sum + `:)`), nil, authn.ErrInvalid, nil},
		"no digest":               {withDigest(""), nil, authn.ErrInvalid, nil},
	} {
		id, err := newTest(t, tt.change, s).Authenticate(t.Context(), tt.request())
		if !errors.Is(err, tt.want) || err == nil && id.Claims["body_verified"] != tt.verified {
			t.Errorf("%s: got %v, %v, want %v, %v", name, id, err, tt.verified, tt.want)
		}
	}
	forged := with(bodyOf("{}"))()
	forged.Path = "/x"
	if _, err := newTest(t, nil, s).Authenticate(t.Context(), forged); !errors.Is(err, authn.ErrSignature) || forged.Body.(*fixedBody).read != 0 {
		t.Errorf("the body of who did not sign was read: %v", err)
	}
}

// TestQueryParameters: a parameter is what the RFC's encoder makes of it (section 2.2.8),
// and stands once.
func TestQueryParameters(t *testing.T) {
	for _, tt := range []struct{ query, name, want string }{
		{"var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something", "var", "this%20is%20a%20big%0Amultiline%20value"},
		{"var=x&bar=with+plus+whitespace", "bar", "with%20plus%20whitespace"},
		{"fa%C3%A7ade%22%3A%20=something", "fa%C3%A7ade%22%3A%20", "something"},
		{"a=1&a=2", "a", ""},
		{"a=1&%61=2", "a", ""},
		{"b=1", "a", ""},
		{"a=%zz", "a", ""},
		{"a=%ff", "a", ""},
		{"", "", ""},
	} {
		got, err := queryParameter(tt.query, tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s of %s: got %q, %v, want %q", tt.name, tt.query, got, err, tt.want)
		}
	}
}

// TestForgerIsLimited: bad signatures are counted; those of others pass all the same.
func TestForgerIsLimited(t *testing.T) {
	s := newTestSigner(t, "k1", edwards)
	a := newTest(t, func(c *Config) { c.VerificationLimit = limit.Config{Failures: 1, Burst: 3} }, s)
	for i := range 10 {
		want := authn.ErrInvalid
		if i >= 3 {
			want = authn.ErrTooMany
		}
		r := s.request(t, "sig1", s.order())
		r.Path = "/x"
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, want) {
			t.Fatalf("forged %d: got %v, want %v", i, err, want)
		}
	}
	r := s.request(t, "sig1", s.order())
	r.Client = "192.0.2.2"
	if _, err := a.Authenticate(t.Context(), r); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// TestInvitation: a 401 says what to sign (RFC 9421 section 5).
func TestInvitation(t *testing.T) {
	s := newTestSigner(t, "k1", edwards)
	for _, tt := range []struct {
		change func(*Config)
		body   authz.Body
		want   string
	}{
		{nil, nil, `sig1=("@method" "@authority" "@path" "@query");created`},
		{nil, bodyOf("x"), `sig1=("@method" "@authority" "@path" "@query" "content-digest");created`},
		{func(c *Config) { c.InsecureUnsignedBody = true }, bodyOf("x"), `sig1=("@method" "@authority" "@path" "@query");created`},
		{func(c *Config) { c.Label, c.Tag, c.Components = "bot", `we"b`, []string{"@authority"} }, nil, `bot=("@authority");created;tag="we\"b"`},
	} {
		a := newTest(t, tt.change, s)
		want := []authz.Header{{Name: "accept-signature", Value: tt.want}}
		if d := cmp.Diff(want, a.Invitation(&authn.Request{Body: tt.body})); d != "" {
			t.Error(d)
		}
	}
	a := newTest(t, nil, s)
	if got := a.Challenge(nil); got != `Signature realm="sallyport"` {
		t.Errorf("challenge is %s", got)
	}
	if got := a.Challenge(authn.ErrInsufficientScope); got != "" {
		t.Errorf("challenge for a scope is %s", got)
	}
}
