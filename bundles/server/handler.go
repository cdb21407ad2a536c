package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// contentType tells OPA's downloader that long polling is understood here.
const contentType = "application/vnd.openpolicyagent.bundles"

// prefix is where OPA looks for bundles unless told otherwise.
const prefix = "/bundles/"

// ServeHTTP answers GET and HEAD of /bundles/NAME and /bundles/NAME.tar.gz.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(r) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	b := s.wait(r)
	if b == nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("ETag", b.etag)
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache")
	if matches(r.Header.Values("If-None-Match"), b.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(b.built.Archive)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(b.built.Archive) // the client went away: nobody is left to tell
}

// wait returns the bundle to answer with: at once if the client does not have it,
// else when there is another one, or the client has waited long enough.
func (s *Server) wait(r *http.Request) *served {
	b := s.lookup(r)
	if b == nil || !matches(r.Header.Values("If-None-Match"), b.etag) {
		return b
	}
	patience := min(preferredWait(r.Header.Values("Prefer")), s.config.MaxWait)
	if patience <= 0 {
		return b
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-b.replaced:
	case <-timer.C:
	case <-s.drained:
	case <-r.Context().Done():
	}
	return s.lookup(r)
}

// lookup finds the bundle that the path names. Names come from a map and never
// reach the file system; a path that is not in its plain form names nothing.
func (s *Server) lookup(r *http.Request) *served {
	name, ok := strings.CutPrefix(r.URL.Path, prefix)
	if !ok || r.URL.RawPath != "" || strings.ContainsAny(name, `/\`) {
		return nil
	}
	name = strings.TrimSuffix(name, ".tar.gz")
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.bundles[name]
	if b == nil || b.built == nil {
		return nil
	}
	return b
}

// matches compares as RFC 9110 section 13.1.2 says, weakly.
func matches(header []string, etag string) bool {
	for _, line := range header {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == etag || tag == "*" {
				return true
			}
		}
	}
	return false
}

// preferredWait reads the preference "wait" of RFC 7240 section 4.3, in seconds.
// OPA separates preferences with a semicolon, the RFC with a comma.
func preferredWait(header []string) time.Duration {
	for _, line := range header {
		for _, p := range strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' }) {
			value, ok := strings.CutPrefix(strings.TrimSpace(p), "wait=")
			if !ok {
				continue
			}
			if n, err := strconv.Atoi(strings.Trim(value, `"`)); err == nil && n > 0 {
				return time.Duration(min(n, 1<<20)) * time.Second
			}
		}
	}
	return 0
}

func (s *Server) authorized(r *http.Request) bool {
	s.mu.RLock()
	want := s.token
	s.mu.RUnlock()
	if want == nil {
		return true
	}
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(got[:], want) == 1
}

// reloadToken reads the token file. If that cannot be done the old token stays.
func (s *Server) reloadToken() error {
	if s.config.TokenFile == "" {
		return nil
	}
	raw, err := os.ReadFile(s.config.TokenFile)
	token := bytes.TrimSpace(raw)
	if err == nil && len(token) == 0 {
		err = fmt.Errorf("%s is empty", s.config.TokenFile)
	}
	if err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	sum := sha256.Sum256(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = sum[:]
	return nil
}
