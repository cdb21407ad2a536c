package httpsignature

import (
	"crypto/ed25519"
	"math"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"

	"github.com/sallyport/sallyport/engine/setting"
)

// fuzzSigner is the same in each of the fuzzer's processes.
func fuzzSigner() *signer {
	return &signer{id: "k1", alg: edwards, private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
}

// FuzzFields: whatever the two fields say, nothing panics, and only what was signed is
// accepted; what is parsed has one reading.
func FuzzFields(f *testing.F) {
	s := fuzzSigner()
	a := newTest(f, func(c *Config) { c.VerificationLimit.Failures = setting.Rate(math.Inf(1)) }, s)
	input, value := s.fields(f, "sig1", s.order())
	for _, seed := range [][2]string{
		{input, value},
		{input + ", " + input, value},
		{input + `;created=1`, value},
		{input + `;tag="a\"b,;"`, value},
		{strings.Replace(input, `"@query"`, `"@query-param";name="a"`, 1), value},
		{`sig1=();created=%"\";created=1;created=2"`, value},
		{`sig1=("a";sf "b";key="c,d;e");x=?1;y=*tok`, `sig1=:AA==:;a=1.5, sig2=:AA:`},
	} {
		f.Add(seed[0], seed[1])
	}
	signed, err := parse(input, value, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input, value string) {
		all, err := parse(input, value, 4)
		if err == nil {
			checkReading(t, input, all)
		}
		r := s.request(t, "sig1", s.order())
		set(r, "signature-input", input)
		set(r, "signature", value)
		id, err := a.Authenticate(t.Context(), r)
		if (id == nil) == (err == nil) {
			t.Fatalf("got %v and %v", id, err)
		}
		if err == nil && all[0].parameters != signed[0].parameters {
			t.Fatalf("accepted %q %q, which was not signed", input, value)
		}
	})
}

// checkReading holds that nothing of the field was lost: it has as many labels,
// components and parameters as a reader sees who keeps what stands twice.
func checkReading(t *testing.T, input string, all []signature) {
	t.Helper()
	d := httpsfv.NewDictionary()
	for _, s := range all {
		again, err := httpsfv.UnmarshalDictionary([]string{s.label + "=" + s.parameters})
		if err != nil {
			t.Fatalf("%q does not read as itself: %v", s.parameters, err)
		}
		m, _ := again.Get(s.label)
		d.Add(s.label, m)
	}
	text, err := httpsfv.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{",", ";", `"`, "=", "("} {
		if strings.Count(text, mark) != strings.Count(input, mark) && !strings.Contains(input, "?1") {
			t.Fatalf("%q was read as %q", input, text)
		}
	}
}

// FuzzDigest: whatever the field says, nothing panics, and what is accepted names the
// digest of the body.
func FuzzDigest(f *testing.F) {
	for _, seed := range []string{digestOf("{}"), "sha-512=:AA==:, " + digestOf("{}"), digestOf("{}") + ", md5=:AAAA:;a", ""} {
		f.Add(seed)
	}
	want := strings.TrimPrefix(digestOf("{}"), "sha-256")
	f.Fuzz(func(t *testing.T, value string) {
		if err := compareDigest(value, []byte("{}")); err == nil && !strings.Contains(value, want[:len(want)-4]) && !strings.Contains(value, "sha-512") {
			t.Fatalf("%q is accepted", value)
		}
	})
}
