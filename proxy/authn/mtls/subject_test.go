package mtls

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestSubjectPatterns: patterns are compared with attributes and whole values.
func TestSubjectPatterns(t *testing.T) {
	ca := certstest.NewCA(t, "CA")
	subject := func(n pkix.Name) *x509.Certificate {
		return ca.Issue(t, "", func(c *x509.Certificate) { c.Subject, c.DNSNames = n, nil }).Leaf
	}
	acme := []string{"Acme"}
	ou := asn1.ObjectIdentifier{2, 5, 4, 11}
	for _, tt := range []struct {
		pattern string
		subject pkix.Name
		in      bool
	}{
		{"CN=*,O=Acme", pkix.Name{CommonName: "cart", Organization: acme}, true},
		{"O=Acme,CN=*", pkix.Name{CommonName: "cart", Organization: acme}, true},
		{"cn=*, o=Acme", pkix.Name{CommonName: "any value, with a comma", Organization: acme}, true},
		{"CN=*,O=Acme", pkix.Name{CommonName: "cart", Organization: []string{"acme"}}, false},
		{"CN=*,O=Acme", pkix.Name{CommonName: "cart", Organization: []string{"Acme Evil"}}, false},
		{"CN=*,O=Acme", pkix.Name{CommonName: "cart", Organization: []string{"Not Acme"}}, false},
		{"CN=*,O=Acme", pkix.Name{CommonName: "cart"}, false},
		{"CN=*,O=Acme", pkix.Name{Organization: acme}, false},
		{"CN=*,O=Acme", pkix.Name{CommonName: "x,O=Acme"}, false},
		{"CN=*,O=Acme", pkix.Name{CommonName: "cart", Organization: acme, Country: []string{"DE"}}, false},
		{"CN=*,O=Acme,**", pkix.Name{CommonName: "cart", Organization: acme, Country: []string{"DE"}}, true},
		{"CN=*,O=Acme,**", pkix.Name{CommonName: "cart", Organization: acme}, true},
		{"CN=*,OU=payments,**", pkix.Name{CommonName: "cart", OrganizationalUnit: []string{"payments"}}, true},
		{"CN=*,OU=payments,**", pkix.Name{CommonName: "cart", OrganizationalUnit: []string{"payments", "guests"}}, false},
		{"CN=*,OU=payments,**", pkix.Name{CommonName: "cart", OrganizationalUnit: []string{"guests", "payments"}}, false},
		{"CN=*,OU=payments,**", pkix.Name{CommonName: "cart", ExtraNames: []pkix.AttributeTypeAndValue{{Type: ou, Value: "payments"}, {Type: ou, Value: "payments"}}}, false},
		{"CN=svc-*", pkix.Name{CommonName: "svc-cart"}, true},
		{"CN=svc-*", pkix.Name{CommonName: "svc-"}, false},
		{"CN=svc-*", pkix.Name{CommonName: "svc-cart.evil.example"}, false},
		{"CN=svc-*", pkix.Name{CommonName: "my-svc-cart"}, false},
		{"CN=svc-*", pkix.Name{CommonName: "svc-cart "}, false},
		{"CN=svc-*", pkix.Name{CommonName: "svc-cart", Organization: acme}, false},
		{"svc-*", pkix.Name{CommonName: "svc-cart", Organization: acme}, true},
		{"svc-*", pkix.Name{Organization: []string{"svc-cart"}}, false},
		{"*.mesh.example", pkix.Name{CommonName: "cart.mesh.example"}, true},
		{"*.mesh.example", pkix.Name{CommonName: "a.b.mesh.example"}, false},
		{"*.mesh.example", pkix.Name{CommonName: "*.mesh.example"}, false},
		{"*.mesh.example", pkix.Name{CommonName: "cart.mesh.example.evil.example"}, false},
		{"*.mesh.example", pkix.Name{CommonName: ".mesh.example"}, false},
		{"*.mesh.example", pkix.Name{CommonName: "x\x00.mesh.example"}, false},
		{"a-*-b-*-c", pkix.Name{CommonName: "a-b-b-b-c"}, true},
		{"a-*-b-*-c", pkix.Name{CommonName: "a-x-b-c"}, false},
		{`\*.mesh.example`, pkix.Name{CommonName: "*.mesh.example"}, true},
		{`\*.mesh.example`, pkix.Name{CommonName: "cart.mesh.example"}, false},
		{`CN=*,O=Acme\, Inc.`, pkix.Name{CommonName: "cart", Organization: []string{"Acme, Inc."}}, true},
		{"CN=cart", pkix.Name{CommonName: "cart"}, true},
		{"CN=*", pkix.Name{}, false},
	} {
		a, err := New("mesh", Config{AllowedSubjectPatterns: []string{tt.pattern}})
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		id, err := a.Authenticate(t.Context(), &authn.Request{TLS: verified(subject(tt.subject)), Now: time.Now()})
		switch {
		case tt.in && (err != nil || id.Subject != tt.subject.CommonName):
			t.Errorf("%s: %s: %+v, %v", tt.pattern, tt.subject, id, err)
		case !tt.in && !errors.Is(err, authn.ErrInvalid):
			t.Errorf("%s: %s: got in as %+v, %v", tt.pattern, tt.subject, id, err)
		}
	}
}

// TestValuePatterns: values match as they would a regular expression, and no value takes
// long. With a search that goes back, the last one would take years.
func TestValuePatterns(t *testing.T) {
	for _, alphabet := range []string{"ab", "a.", "ab.*"} {
		random := rand.New(rand.NewPCG(1, 2))
		text := func(most int) string {
			b := make([]byte, random.IntN(most))
			for i := range b {
				b[i] = alphabet[random.IntN(len(alphabet))]
			}
			return string(b)
		}
		for range 20000 {
			v := valuePattern{text(4), text(4)}
			for range random.IntN(3) {
				v = slices.Insert(v, 1, text(3)+"a") // none is empty between two wildcards
			}
			value, quoted := text(12), make([]string, len(v))
			for i := range v {
				quoted[i] = regexp.QuoteMeta(v[i])
			}
			if len(v) == 2 && v[0]+v[1] == "" {
				continue // every value
			}
			want := regexp.MustCompile(`^` + strings.Join(quoted, `[A-Za-z0-9_-]+`) + `$`).MatchString(value)
			if got := v.match(value); got != want {
				t.Fatalf("%q, %q: got %v, want %v", v, value, got, want)
			}
		}
	}
	many := valuePattern(strings.Split(strings.Repeat("*a", 40)+"*b", "*"))
	if many.match(strings.Repeat("a", maxValue)) {
		t.Error("a value without b matches")
	}
	if !many.match(strings.Repeat("a", maxValue-1) + "b") {
		t.Error("a value with b does not match")
	}
}

// TestSubjectsStayExact: allowed_subjects has no wildcards, whatever it contains.
func TestSubjectsStayExact(t *testing.T) {
	a, err := New("mesh", Config{AllowedSubjects: []string{"CN=*", "*"}})
	if err != nil {
		t.Fatal(err)
	}
	leaf := certstest.NewCA(t, "CA").Issue(t, "eve", nil).Leaf
	if id, err := a.Authenticate(t.Context(), &authn.Request{TLS: verified(leaf), Now: time.Now()}); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestSubjectPatternsConfig(t *testing.T) {
	for _, text := range []string{
		"", "**", "**,CN=a", "CN=a,**,O=b", "CN=", "CN=a,CN=b", "X=a", "CN=a,", "CN=a**", "CN=a+O=b", `CN=a\`, "CN=a,b", `CN="a"`,
	} {
		if problems := setting.Problems(Config{AllowedSubjectPatterns: []string{text}}.Validate()); len(problems) != 1 || problems[0].Key != "allowed_subject_patterns" {
			t.Errorf("%q: problems are %v", text, problems)
		}
	}
	for _, c := range []Config{
		{AllowedSubjectPatterns: []string{"CN=*"}, TrustDomain: "example.org"},
		{AllowedSubjectPatterns: []string{"CN=*"}, Forwarded: &Forwarded{Header: "xfcc", From: []string{"**"}}},
	} {
		if problems := setting.Problems(c.Validate()); len(problems) != 1 || problems[0].Key != "allowed_subject_patterns" {
			t.Errorf("problems are %v", problems)
		}
	}
}
