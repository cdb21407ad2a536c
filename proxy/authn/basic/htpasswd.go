package basic

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"github.com/sallyport/sallyport/engine/authz"
)

const (
	maxFile = 4 << 20 // bytes; about 50,000 users

	// Under 10, a stolen file is read too fast. Over 14, one password keeps a
	// processor busy for more than a second.
	minCost = 10
	maxCost = 14
)

// user is one line of the file.
type user struct {
	hash     []byte
	identity *authz.Identity
}

// users are those of one file.
type users struct {
	byName map[string]*user
	// dummy is what the passwords of unknown users are compared with, as expensive
	// as the most expensive of the known: the time does not tell who exists. In a
	// file of several costs it tells who has a lower one.
	dummy []byte
}

// load reads the file of the authenticator called name.
func load(name, file string, cheapest int) (*users, error) {
	f, err := os.Open(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("open users: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxFile)
	}
	return parse(name, file, string(data), cheapest)
}

// parse reads lines of name:hash. One that is wrong refuses the file. No error
// shows what stands behind the name: it may be a password.
func parse(name, file, data string, cheapest int) (*users, error) {
	set := &users{byName: map[string]*user{}}
	var errs []error
	cost, number := cheapest, 0
	for line := range strings.Lines(data) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c, err := set.add(name, line, cheapest)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, number, err))
		}
		cost = max(cost, c)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var err error
	set.dummy, err = bcrypt.GenerateFromPassword(nil, cost)
	return set, err
}

func (s *users) add(name, line string, cheapest int) (cost int, err error) {
	who, hash, ok := strings.Cut(line, ":")
	switch {
	case !ok:
		return 0, errors.New("is not name:hash")
	case !goodName(who):
		return 0, fmt.Errorf("name %q is empty, not UTF-8, or has control characters", who)
	case s.byName[who] != nil:
		return 0, fmt.Errorf("user %q stands twice", who)
	}
	if cost, err = checkHash(hash, cheapest); err != nil {
		return 0, fmt.Errorf("user %q: %w", who, err)
	}
	s.byName[who] = &user{
		hash:     []byte(hash),
		identity: &authz.Identity{Authenticated: true, Authenticator: name, Kind: Kind, Subject: who},
	}
	return cost, nil
}

// goodName is what a user-id may be (RFC 7617 section 2).
func goodName(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, control)
}

func control(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

var errScheme = errors.New("hash is not bcrypt ($2y$ or $2b$), which alone is accepted: set the password again with htpasswd -B")

// checkHash says whether hash is bcrypt as it is written today: $2a$ has had
// implementations that made other hashes of the same password. What follows the
// prefix is fixed in length and alphabet.
func checkHash(hash string, cheapest int) (cost int, err error) {
	if !strings.HasPrefix(hash, "$2y$") && !strings.HasPrefix(hash, "$2b$") {
		return 0, errScheme
	}
	if cost, err = bcrypt.Cost([]byte(hash)); err != nil || len(hash) != 60 || strings.ContainsFunc(hash[7:], notBase64) {
		return 0, errors.New("hash is cut or damaged: set the password again with htpasswd -B")
	}
	if cost < cheapest || cost > maxCost {
		return 0, fmt.Errorf("bcrypt cost %d is not between %d and %d: set the password again with htpasswd -B -C 12", cost, cheapest, maxCost)
	}
	return cost, nil
}

func notBase64(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '/'
}
