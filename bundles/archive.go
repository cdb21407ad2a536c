package bundles

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"

	"github.com/sallyport/sallyport/engine/document"
)

// DefaultSizeLimit is how large a bundle of a service may be, unpacked, in bytes.
const DefaultSizeLimit = 64 << 20

// localLimit is how large a bundle may be that an operator names or builds.
const localLimit = 1 << 30

var errTooLarge = errors.New("bundle exceeds its size limit")

// readArchive reads a bundle from a file, with its signature verified against
// verification, or not looked at if that is nil.
func readArchive(path string, verification *bundle.VerificationConfig) (*bundle.Bundle, error) {
	raw, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	b, err := parseArchive(raw, verification)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", path, err)
	}
	return b, nil
}

func parseArchive(raw []byte, verification *bundle.VerificationConfig) (*bundle.Bundle, error) {
	if err := checkArchive(raw, localLimit); err != nil {
		return nil, err
	}
	b, err := bundle.NewReader(bytes.NewReader(raw)).
		WithRegoVersion(ast.RegoV1).
		WithProcessAnnotations(true).
		WithSizeLimitBytes(localLimit).
		WithSkipBundleVerification(verification == nil).
		WithBundleVerificationConfig(verification).
		Read()
	if err != nil {
		return nil, err
	}
	return &b, nil
}

// checkArchive unpacks a gzip archive into nothing. OPA's reader stops at the end
// of the tar, before the checksum, and its limit is per file: a flipped bit and
// many large files would pass.
func checkArchive(raw []byte, limit int64) error {
	zr, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	n, err := io.Copy(io.Discard, givingWay{io.LimitReader(zr, limit+1)})
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if n > limit {
		return fmt.Errorf("%w of %d bytes unpacked", errTooLarge, limit)
	}
	return nil
}

// givingWay is a reader that lets requests go first before it hands out more:
// unpacking is work for the processor, not for the network.
type givingWay struct{ io.Reader }

func (g givingWay) Read(p []byte) (int, error) {
	document.GiveWay()
	return g.Reader.Read(p)
}

// readSignatures returns the tokens of the archive's signatures file.
func readSignatures(path string) ([]string, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	files := bundle.NewTarballLoader(f)
	for {
		d, err := files.NextFile()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("bundle %s: %w", path, err)
		}
		if !bundle.IsSignaturesFile(d.Path()) {
			continue
		}
		var buf bytes.Buffer
		if _, err := d.Read(&buf, localLimit); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("bundle %s: read signatures: %w", path, err)
		}
		var s bundle.SignaturesConfig
		if err := json.Unmarshal(buf.Bytes(), &s); err != nil {
			return nil, fmt.Errorf("bundle %s: read signatures: %w", path, err)
		}
		return s.Signatures, nil
	}
}
