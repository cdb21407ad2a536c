package jose

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// wycheproofFile is the part of Project Wycheproof's files that is read here.
type wycheproofFile struct {
	TestGroups []struct {
		Comment string          `json:"comment"`
		Public  json.RawMessage `json:"public"`
		Private json.RawMessage `json:"private"`
		Tests   []struct {
			TcID    int             `json:"tcId"`
			Comment string          `json:"comment"`
			JWS     json.RawMessage `json:"jws"`
			Result  string          `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

// disagreements are the vectors that are judged otherwise here, by file and
// tcId, each with the reason. One that no longer disagrees fails the test.
func disagreements() map[string]map[int]string {
	const (
		es521    = `the key names the algorithm "ES521", which does not exist (RFC 7518 section 3.1: ES512)`
		figure20 = "the token says PS384 and its key is declared for PS256"
		inserted = "the base64url has a character that is not in its alphabet; decoders that skip it see a valid token"
		unpadded = "the comment speaks of wrong padding, and the text has none: it is the valid token of tcId 357"
	)
	return map[string]map[int]string{
		"json_web_signature_test.json": {
			346: figure20, 347: es521, 350: figure20, 351: es521,
			367: unpadded, 370: unpadded,
			372: inserted, 373: inserted,
		},
	}
}

func TestWycheproof(t *testing.T) {
	shared := os.Getenv("SALLYPORT_SHARED")
	if shared == "" {
		t.Skip("SALLYPORT_SHARED does not name the folder that holds vectors/ with Project Wycheproof's files")
	}
	counts := map[string]int{
		"json_web_signature_test.json": 401, "json_web_crypto_test.json": 49, "json_web_key_test.json": 26,
	}
	for name, want := range counts {
		t.Run(name, func(t *testing.T) {
			if got := runWycheproof(t, filepath.Join(shared, "vectors", name), disagreements()[name]); got != want {
				t.Errorf("%d vectors were run, want %d", got, want)
			}
		})
	}
}

func runWycheproof(t *testing.T, path string, except map[int]string) (count int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file wycheproofFile
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.TestGroups {
		jwk := group.Public
		if jwk == nil {
			jwk = group.Private
		}
		for _, test := range group.Tests {
			if test.JWS == nil { // the JWE part
				continue
			}
			count++
			err := verifyVector(jwk, test.JWS)
			agrees := (err == nil) == (test.Result == "valid")
			switch reason, listed := except[test.TcID]; {
			case !agrees && !listed:
				t.Errorf("tcId %d (%s, %s): want %s, got error %v", test.TcID, group.Comment, test.Comment, test.Result, err)
			case agrees && listed:
				t.Errorf("tcId %d no longer disagrees: %s", test.TcID, reason)
			}
		}
	}
	return count
}

// verifyVector sends a vector through the layers of the real path that know no
// claims: reading the key set, taking the token apart, verifying the signature.
func verifyVector(jwk, jws json.RawMessage) error {
	var text string
	if err := json.Unmarshal(jws, &text); err != nil {
		return errors.New("not a text")
	}
	if !isKeySet(jwk) {
		jwk = fmt.Appendf(nil, `{"keys":[%s]}`, jwk)
	}
	set, err := ParseKeySet(jwk, true)
	if err != nil {
		return err
	}
	token, err := ParseJWS(text)
	if err != nil {
		return err
	}
	allowed := make(map[string]Algorithm)
	for _, a := range algorithms() {
		allowed[a.Name] = a
	}
	_, err = set.Verify(token, allowed)
	return err
}

func isKeySet(jwk json.RawMessage) bool {
	var doc map[string]json.RawMessage
	return json.Unmarshal(jwk, &doc) == nil && doc["keys"] != nil
}
