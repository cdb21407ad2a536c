package bundles

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/keys"
	"github.com/open-policy-agent/opa/v1/util"
)

// Signing is how bundles are signed. A gateway that has the key's public half
// under KeyID in `policy.opa.keys` accepts them.
type Signing struct {
	KeyFile    string // PEM private key, or the secret of an HS algorithm
	KeyID      string // name that verifiers know the key by
	Algorithm  string // RS256 (the default), PS256, ES256, HS256 and their longer forms
	ClaimsFile string // JSON object of further claims, "scope" for example; optional
}

// Validate reports what is missing.
func (s *Signing) Validate() error {
	var errs []error
	if s.KeyFile == "" {
		errs = append(errs, errors.New("signing needs a key file"))
	}
	if s.KeyID == "" {
		errs = append(errs, errors.New("signing needs a key id: gateways choose the public key by it"))
	}
	if s.Algorithm != "" && !keys.IsSupportedAlgorithm(s.Algorithm) {
		errs = append(errs, fmt.Errorf("%q is not a signature algorithm for bundles", s.Algorithm))
	}
	return errors.Join(errs...)
}

// config reads the key. OPA takes what is no PEM for a file name if such a file
// exists, so a secret that happens to be one is refused.
func (s *Signing) config() (*bundle.SigningConfig, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key := strings.TrimRight(string(raw), "\r\n")
	if !strings.HasPrefix(key, "-----BEGIN") {
		if _, err := os.Stat(key); err == nil { //nolint:gosec // only whether there is such a file
			return nil, fmt.Errorf("signing key %s: the secret is the name of an existing file", s.KeyFile)
		}
	}
	return bundle.NewSigningConfig(key, s.Algorithm, s.ClaimsFile), nil
}

// Sign reads a bundle archive and writes it signed. A signature that it already
// has is replaced.
func Sign(path string, s Signing, w io.Writer) error {
	sc, err := s.config()
	if err != nil {
		return err
	}
	b, err := readArchive(path, nil)
	if err != nil {
		return err
	}
	if b.Type() == bundle.DeltaBundleType {
		return fmt.Errorf("bundle %s: a delta bundle cannot be signed", path)
	}
	if err := b.GenerateSignature(sc, s.KeyID, false); err != nil {
		return fmt.Errorf("sign bundle %s: %w", path, err)
	}
	if err := bundle.NewWriter(w).DisableFormat(true).Write(*b); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// SignDirectory returns the .signatures.json for a directory that is packed as a
// bundle by other means.
func SignDirectory(dir string, s Signing) ([]byte, error) {
	sc, err := s.config()
	if err != nil {
		return nil, err
	}
	files, err := hashDirectory(dir)
	if err != nil {
		return nil, fmt.Errorf("hash %s: %w", dir, err)
	}
	token, err := bundle.GenerateSignedToken(files, sc, s.KeyID)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", dir, err)
	}
	return json.MarshalIndent(bundle.SignaturesConfig{Signatures: []string{token}}, "", "  ")
}

func hashDirectory(dir string) ([]bundle.FileInfo, error) {
	hasher, err := bundle.NewSignatureHasher(bundle.SHA256)
	if err != nil {
		return nil, err
	}
	var out []bundle.FileInfo
	next := bundle.NewDirectoryLoader(dir)
	for {
		f, err := next.NextFile()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(f.Path(), "/")
		if bundle.IsSignaturesFile(name) {
			continue
		}
		sum, err := hashFile(hasher, f, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, bundle.NewFile(name, hex.EncodeToString(sum), string(bundle.SHA256)))
	}
}

// hashFile hashes documents by their value, so that a signature survives another
// way of writing the same JSON, and everything else by its bytes.
func hashFile(hasher bundle.SignatureHasher, f *bundle.Descriptor, name string) ([]byte, error) {
	var buf bytes.Buffer
	if _, err := f.Read(&buf, bundle.DefaultSizeLimitBytes); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	if !bundle.IsStructuredDoc(name) {
		return hasher.HashFile(buf.Bytes())
	}
	var doc any
	if err := util.Unmarshal(buf.Bytes(), &doc); err != nil {
		return nil, err
	}
	return hasher.HashFile(doc)
}

// Verification is what a bundle's signature is verified with.
type Verification struct {
	KeyFile   string // PEM public key or certificate, or the secret of an HS algorithm
	KeyID     string // the key that must have signed
	Algorithm string // RS256 when empty
	Scope     string // scope that the signature must have been made for; optional
}

func (v *Verification) config() (*bundle.VerificationConfig, error) {
	if v.KeyFile == "" {
		return nil, errors.New("verifying needs a key file")
	}
	raw, err := os.ReadFile(v.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read verification key: %w", err)
	}
	alg := v.Algorithm
	if alg == "" {
		alg = "RS256"
	}
	if !keys.IsSupportedAlgorithm(alg) {
		return nil, fmt.Errorf("%q is not a signature algorithm for bundles", alg)
	}
	key := &keys.Config{Key: strings.TrimRight(string(raw), "\r\n"), Algorithm: alg, Scope: v.Scope}
	return bundle.NewVerificationConfig(map[string]*keys.Config{v.KeyID: key}, v.KeyID, v.Scope, nil), nil
}

// Verify reads a bundle archive and fails unless it is signed with the key and
// holds exactly the files that were signed.
func Verify(path string, v Verification) (*Inspection, error) {
	vc, err := v.config()
	if err != nil {
		return nil, err
	}
	b, err := readArchive(path, vc)
	if err != nil {
		return nil, err
	}
	if b.Type() == bundle.DeltaBundleType {
		return nil, fmt.Errorf("bundle %s: a delta bundle cannot be signed", path)
	}
	i, err := inspect(b)
	if err != nil {
		return nil, err
	}
	// OPA verifies with the key that it was given, whatever name the signature has
	// for it; a gateway would look for the key by that name.
	for _, s := range i.Signatures {
		if s.KeyID != v.KeyID {
			return nil, fmt.Errorf("bundle %s: signed with key id %q, not %q", path, s.KeyID, v.KeyID)
		}
	}
	return i, nil
}
