package bundles

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// Inspection is what a bundle says about itself. Nothing in it is verified,
// unless Verify returned it.
type Inspection struct {
	Revision    string           `json:"revision"`
	Type        string           `json:"type"` // snapshot or delta
	Roots       []string         `json:"roots"`
	RegoVersion int              `json:"rego_version"`
	Metadata    map[string]any   `json:"metadata,omitempty"`
	Files       []InspectedFile  `json:"files"`
	Data        []string         `json:"data,omitempty"` // top-level names below data
	Signatures  []InspectedToken `json:"signatures,omitempty"`
}

// InspectedFile is one file of a bundle.
type InspectedFile struct {
	Name        string `json:"name"`
	Size        int    `json:"size"` // bytes
	Package     string `json:"package,omitempty"`
	RegoVersion int    `json:"rego_version,omitempty"`
}

// InspectedToken is one signature of a bundle.
type InspectedToken struct {
	KeyID     string         `json:"key_id"`
	Algorithm string         `json:"algorithm"`
	Claims    map[string]any `json:"claims,omitempty"` // without the list of files
	Files     int            `json:"files"`            // files that it covers
}

// Inspect reads a bundle archive and verifies nothing.
func Inspect(path string) (*Inspection, error) {
	b, err := readArchive(path, nil)
	if err != nil {
		return nil, err
	}
	// A reader that skips verification does not read the signature either.
	if b.Signatures.Signatures, err = readSignatures(path); err != nil {
		return nil, err
	}
	return inspect(b)
}

func inspect(b *bundle.Bundle) (*Inspection, error) {
	out := &Inspection{
		Revision:    b.Manifest.Revision,
		Type:        b.Type(),
		RegoVersion: b.RegoVersion(ast.RegoV1).Int(),
		Metadata:    b.Manifest.Metadata,
		Files:       []InspectedFile{},
	}
	if b.Manifest.Roots != nil {
		out.Roots = *b.Manifest.Roots
	}
	for _, m := range b.Modules {
		version, err := b.RegoVersionForFile(m.Path, ast.RegoV1)
		if err != nil {
			return nil, fmt.Errorf("version of Rego in %s: %w", m.Path, err)
		}
		out.Files = append(out.Files, InspectedFile{
			Name: strings.TrimPrefix(m.Path, "/"), Size: len(m.Raw),
			Package: m.Parsed.Package.Path.String(), RegoVersion: version.Int(),
		})
	}
	for _, m := range b.WasmModules {
		out.Files = append(out.Files, InspectedFile{Name: strings.TrimPrefix(m.Path, "/"), Size: len(m.Raw)})
	}
	out.Data = slices.Sorted(maps.Keys(b.Data))
	for _, token := range b.Signatures.Signatures {
		t, err := inspectToken(token)
		if err != nil {
			return nil, err
		}
		out.Signatures = append(out.Signatures, *t)
	}
	return out, nil
}

func inspectToken(token string) (*InspectedToken, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("signature is not a compact JWT")
	}
	var header struct {
		KeyID     string `json:"kid"`
		Algorithm string `json:"alg"`
	}
	claims := map[string]any{}
	if err := decodePart(parts[0], &header); err != nil {
		return nil, fmt.Errorf("header of the signature: %w", err)
	}
	if err := decodePart(parts[1], &claims); err != nil {
		return nil, fmt.Errorf("claims of the signature: %w", err)
	}
	files, _ := claims["files"].([]any)
	delete(claims, "files")
	return &InspectedToken{KeyID: header.KeyID, Algorithm: header.Algorithm, Claims: claims, Files: len(files)}, nil
}

func decodePart(part string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}
