// Package setting holds what every Config struct of the gateway shares: scalars
// that YAML has no type for, and problems that name the key they are about.
//
// It does not read files: the config package decodes YAML into the structs and
// turns a problem's key into a file and line.
package setting

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Size is a number of bytes, written "10MiB" (also B, KiB, GiB, KB, MB, GB or a
// plain number of bytes).
type Size int64

var sizeUnits = []struct {
	suffix string
	factor int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"B", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	in := string(text)
	num, factor := in, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(in, u.suffix); ok {
			num, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n < 0 || (n > 0 && factor > (1<<62)/n) {
		return fmt.Errorf("%q is not a size such as 64KiB or 10MiB", in)
	}
	*s = Size(n * factor)
	return nil
}

// MarshalText writes the size with the largest unit that divides it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for _, u := range sizeUnits[:3] {
		if s != 0 && int64(s)%u.factor == 0 {
			return strconv.FormatInt(int64(s)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Problem is one thing wrong with one key of the configuration.
type Problem struct {
	Key string // path below the struct that reports it: "tls.cert_file", "routes[2].upstream"
	Err error
}

func (p *Problem) Error() string {
	if p.Key == "" {
		return p.Err.Error()
	}
	return p.Key + ": " + p.Err.Error()
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Problemf makes a Problem. Join several with errors.Join.
func Problemf(key, format string, args ...any) error {
	return &Problem{Key: key, Err: fmt.Errorf(format, args...)}
}

// Under puts prefix before the key of every problem in err, so that a struct can
// hand on what its members report. Other errors become problems of prefix.
func Under(prefix string, err error) error {
	if err == nil {
		return nil
	}
	list := Problems(err)
	out := make([]error, len(list))
	for i, p := range list {
		key := prefix
		switch {
		case p.Key == "":
		case prefix == "" || strings.HasPrefix(p.Key, "["):
			key = prefix + p.Key
		default:
			key = prefix + "." + p.Key
		}
		out[i] = &Problem{Key: key, Err: p.Err}
	}
	return errors.Join(out...)
}

// Address checks host:port as a listener takes it; the host may be left out.
func Address(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return fmt.Errorf("%q is not host:port, such as 127.0.0.1:9901", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port between 0 and 65535", address)
	}
	return nil
}

// Problems flattens err, which may be joined, into its problems in order.
func Problems(err error) []*Problem {
	switch e := err.(type) { //nolint:errorlint // joined errors are walked here, wrapped ones are leaves
	case nil:
		return nil
	case *Problem:
		return []*Problem{e}
	case interface{ Unwrap() []error }:
		var out []*Problem
		for _, m := range e.Unwrap() {
			out = append(out, Problems(m)...)
		}
		return out
	default:
		return []*Problem{{Err: err}}
	}
}
