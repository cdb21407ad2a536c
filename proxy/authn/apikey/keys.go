package apikey

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/engine/authz"
)

const (
	maxFile = 16 << 20 // bytes; about 100,000 keys

	// A key of fewer characters cannot be 128 random bits in base64, the densest
	// text in use; a longer one is not a key.
	minKey = 22
	maxKey = 512

	newKeyBytes = 20 // 160 bits: whole characters of base32
	prefix      = "spk_"
)

// entry is one key of the file.
type entry struct {
	ID        string         `yaml:"id"`
	SHA256    string         `yaml:"sha256"`
	Subject   string         `yaml:"subject"`
	Scopes    []string       `yaml:"scopes"`
	Claims    map[string]any `yaml:"claims"`
	NotBefore time.Time      `yaml:"not_before"`
	ExpiresAt time.Time      `yaml:"expires_at"`
}

// key is an entry ready for requests.
type key struct {
	identity  *authz.Identity
	notBefore time.Time
}

// keys are the keys of one file, by their hash. To find one by its hash leaks
// nothing by its time: who could steer the hash of a guess towards one that is
// there would have broken SHA-256.
type keys map[[sha256.Size]byte]*key

// load reads the file of the authenticator called name.
func load(name, file string) (keys, error) {
	f, err := os.Open(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxFile)
	}
	set, err := parse(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return set, nil
}

// parse reads a list of entries in YAML, of which JSON is a part. One that is wrong
// refuses the file: a key that was believed to be limited must not be without limit.
func parse(name string, data []byte) (keys, error) {
	var list []yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("is not a list of keys: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	set, ids := make(keys, len(list)), make(map[string]bool, len(list))
	var errs []error
	for i := range list {
		if err := set.add(name, &list[i], ids); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", list[i].Line, err))
		}
	}
	return set, errors.Join(errs...)
}

func (s keys) add(name string, n *yaml.Node, ids map[string]bool) error {
	e, err := readEntry(n)
	if err != nil {
		return err
	}
	sum, err := e.check()
	if err != nil {
		return err
	}
	if ids[e.ID] {
		return fmt.Errorf("id %q stands twice", e.ID)
	}
	if s[sum] != nil {
		return fmt.Errorf("key %q has the sha256 of another", e.ID)
	}
	ids[e.ID] = true
	claims, err := e.claims()
	if err != nil {
		return fmt.Errorf("key %q: claims: %w", e.ID, err)
	}
	s[sum] = &key{notBefore: e.NotBefore, identity: &authz.Identity{
		Authenticated: true, Authenticator: name, Kind: Kind,
		Subject: e.Subject, Scopes: e.Scopes, Claims: claims, ExpiresAt: e.ExpiresAt,
	}}
	return nil
}

// readEntry decodes strictly. A node has no such mode, hence the way through text.
func readEntry(n *yaml.Node) (*entry, error) {
	text, err := yaml.Marshal(n)
	if err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var e entry
	if err := dec.Decode(&e); err != nil {
		if typed, ok := errors.AsType[*yaml.TypeError](err); ok { // its lines are those of the text above
			return nil, errors.New(withoutLine(typed.Errors[0]))
		}
		return nil, err
	}
	return &e, nil
}

func withoutLine(text string) string {
	if _, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(text, "line ") {
		text = rest
	}
	return strings.TrimSuffix(text, " in type apikey.entry")
}

func (e *entry) check() (sum [sha256.Size]byte, err error) {
	switch {
	case e.ID == "":
		return sum, errors.New("id is missing: it names the key in logs and policies")
	case e.Subject == "":
		return sum, fmt.Errorf("key %q: subject is missing: it says whose key it is", e.ID)
	case !e.ExpiresAt.IsZero() && !e.ExpiresAt.After(e.NotBefore):
		return sum, fmt.Errorf("key %q: expires_at is not after not_before", e.ID)
	case e.Claims[claimID] != nil:
		return sum, fmt.Errorf("key %q: claims.%s is set by the gateway", e.ID, claimID)
	}
	for _, s := range e.Scopes {
		if s == "" || strings.ContainsAny(s, " \t\n") {
			return sum, fmt.Errorf("key %q: scope %q is empty or has a space", e.ID, s)
		}
	}
	if n, err := hex.Decode(sum[:], []byte(e.SHA256[:min(len(e.SHA256), 2*len(sum))])); err != nil || n != len(sum) || len(e.SHA256) != 2*len(sum) {
		return sum, fmt.Errorf("key %q: sha256 is not 64 hexadecimal digits; printf %%s KEY | sha256sum prints them", e.ID)
	}
	return sum, nil
}

// claimID is the claim with the id of the key.
const claimID = "key_id"

// claims are JSON values, whatever YAML has beside them.
func (e *entry) claims() (map[string]any, error) {
	all := maps.Clone(e.Claims)
	if all == nil {
		all = map[string]any{}
	}
	all[claimID] = e.ID
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var out map[string]any
	return out, dec.Decode(&out)
}

// Hash returns the hash of a key for the file. A key that would never be accepted is
// an error.
func Hash(text string) (string, error) {
	if len(text) < minKey || len(text) > maxKey {
		return "", fmt.Errorf("has %d characters, and a key has %d to %d", len(text), minKey, maxKey)
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]), nil
}

// Generate makes a key of 160 random bits and its hash for the file.
func Generate() (text, hash string) {
	var raw [newKeyBytes]byte
	_, _ = rand.Read(raw[:]) // never fails
	text = prefix + strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))
	hash, _ = Hash(text) // it is of the right length
	return text, hash
}
