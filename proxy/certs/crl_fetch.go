package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// CRL says which revocation lists are fetched, and what becomes of clients without them.
type CRL struct {
	// URLs are where revocation lists are fetched, DER or PEM, before the first client comes
	// and then in the background. No other address is ever asked, whatever a client's
	// certificate names. Lists are signed, so http is as good as https (RFC 5280 section 8).
	// As with crl_files, every authority of a client's chain must have a list.
	URLs []string `yaml:"urls"`
	// Mode is hard or soft; hard by default. Where the list of an authority is missing or
	// out of date, hard refuses its clients and soft lets them in, unless the last list
	// that was had names them: whoever can keep the gateway from the list can then use a
	// certificate that was revoked since. An authority with a list in crl_files is held to it.
	Mode string `yaml:"mode"`
	// CAFile holds the PEM certificates that https servers are verified with instead of
	// the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// RefreshInterval is the time between two fetches, 1h by default; fewer where half of
	// the time to the list's nextUpdate is less.
	RefreshInterval time.Duration `yaml:"refresh_interval"`
	// Timeout bounds one fetch; 30s by default.
	Timeout time.Duration `yaml:"timeout"`
	// MaxBytes bounds what one URL answers, 16MiB by default. In memory a list takes
	// several times its size.
	MaxBytes setting.Size `yaml:"max_bytes"`
}

// Values of crl.mode.
const (
	crlHard = "hard"
	crlSoft = "soft"
)

const (
	crlRefresh = time.Hour
	crlTimeout = 30 * time.Second
	crlBytes   = 16 << 20
	// A list that is about to end is not fetched more often than this.
	crlMinRefresh = time.Second
	crlFirstRetry = time.Second
	crlMaxRetry   = time.Minute
)

func (c CRL) on() bool { return len(c.URLs) > 0 }

func (c CRL) validate() error {
	var errs []error
	problem := func(key, format string, args ...any) { errs = append(errs, setting.Problemf(key, format, args...)) }
	encrypted := false
	for i, u := range c.URLs {
		if err := fetch.CheckURL(u, true); err != nil {
			problem("urls", "%q is not an http or https URL with a host, without user and fragment", u)
		}
		if slices.Contains(c.URLs[:i], u) {
			problem("urls", "%q is there twice", u)
		}
		encrypted = encrypted || strings.HasPrefix(u, "https:")
	}
	switch {
	case c.Mode != "" && c.Mode != crlHard && c.Mode != crlSoft:
		problem("mode", "%q is not hard or soft", c.Mode)
	case c.Mode == crlSoft && !c.on():
		problem("mode", "has no effect without urls: lists in crl_files are always hard")
	}
	if c.CAFile != "" && !encrypted {
		problem("ca_file", "has no effect without an https URL in urls")
	}
	if c.RefreshInterval != 0 && (c.RefreshInterval < crlMinRefresh || c.RefreshInterval > 7*24*time.Hour) {
		problem("refresh_interval", "%s is not between 1s and 168h", c.RefreshInterval)
	}
	if c.Timeout < 0 || c.Timeout > 10*time.Minute {
		problem("timeout", "%s is not between 0s and 10m", c.Timeout)
	}
	if c.MaxBytes < 0 || c.MaxBytes > 1<<30 {
		problem("max_bytes", "%s is not between 0 and 1GiB", c.MaxBytes)
	}
	return errors.Join(errs...)
}

// fetchedLists are the lists that the URLs of one part gave. They outlive the files.
type fetchedLists struct {
	config CRL
	client *fetch.Client
	urls   []*listURL
	now    func() time.Time
	logger *slog.Logger
	lines  *lines
}

// listURL is one URL and what it gave.
type listURL struct {
	url string
	of  *fetchedLists
	// lists are the newest, by whose they are: the list of one authority does not go
	// because the URL gives that of another. Owned by Store.reloading.
	lists map[authority]*list
	awake chan struct{} // has a fetch made before its time

	mu             sync.Mutex // held during a fetch
	failures       int        // since the last good fetch
	until          time.Time  // when the first of lists ends
	etag, modified string     // validators of the last good answer (RFC 9110 section 8.8)
}

// newFetchedLists returns nil if nothing is to be fetched. It fetches nothing.
func newFetchedLists(c CRL, deps Deps) (*fetchedLists, error) {
	if !c.on() {
		return nil, nil
	}
	if c.Mode == "" {
		c.Mode = crlHard
	}
	if c.RefreshInterval == 0 {
		c.RefreshInterval = crlRefresh
	}
	if c.Timeout == 0 {
		c.Timeout = crlTimeout
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = crlBytes
	}
	client, err := fetch.New(fetch.Config{Whose: "revocation lists", CAFile: c.CAFile, Connections: 1})
	f := &fetchedLists{config: c, client: client, now: deps.Now, logger: deps.Logger, lines: newLines()}
	for _, u := range c.URLs {
		f.urls = append(f.urls, &listURL{url: u, of: f, lists: map[authority]*list{}, awake: make(chan struct{}, 1)})
	}
	return f, err
}

// reload reads the files of f, which may be nil.
func (f *fetchedLists) reload() error {
	if f == nil {
		return nil
	}
	return f.client.Reload()
}

// wake has every list fetched now.
func (f *fetchedLists) wake() {
	if f == nil {
		return
	}
	for _, u := range f.urls {
		wake(u.awake)
	}
}

// join returns the lists of the files and of f that are of authorities, the newest of each,
// and whether a URL gave none so far.
func (f *fetchedLists) join(files *revocations, authorities []*x509.Certificate) (*revocations, bool) {
	r := &revocations{lists: maps.Clone(files.lists), held: files.held, issuers: files.issuers}
	if f.config.Mode == crlSoft {
		r.soft = f.passed
	}
	missing := false
	for _, u := range f.urls {
		missing = missing || len(u.lists) == 0
		for _, a := range authorities {
			if l := u.lists[authorityOf(a)]; l != nil {
				r.put(authorityOf(a), l)
			}
		}
	}
	return r, missing
}

// mark returns what tells the lists of f, and the files that trust is of, from others.
func (f *fetchedLists) mark(trust [sha256.Size]byte) [sha256.Size]byte {
	digest := sha256.New()
	digest.Write(trust[:])
	for _, u := range f.urls {
		sums := make([][]byte, 0, len(u.lists))
		for _, l := range u.lists {
			sums = append(sums, l.sum[:])
		}
		slices.SortFunc(sums, bytes.Compare)
		digest.Write(bytes.Join(sums, nil))
	}
	return [sha256.Size]byte(digest.Sum(nil))
}

// passed says that a certificate was let in of which nobody knows whether it is revoked.
func (f *fetchedLists) passed(why error) {
	if left, ok := f.lines.next(f.now()); ok {
		f.logger.Warn("a client certificate is let in although it is not known whether it is revoked", slog.String("mode", f.config.Mode),
			slog.Int64("not_logged", left), slog.Any("error", why))
	}
}

// urls are those of all parts.
func (s *Store) urls() (all []*listURL) {
	for _, f := range s.fetched {
		if f != nil {
			all = append(all, f.urls...)
		}
	}
	return all
}

// primeLists fetches where there is no list.
func (s *Store) primeLists(ctx context.Context) error {
	g := errgroup.Group{}
	errs := make([]error, len(s.urls()))
	for i, u := range s.urls() {
		g.Go(func() error {
			if !s.has(u) {
				errs[i] = s.refreshList(ctx, u)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs, all of them
	return errors.Join(errs...)
}

func (s *Store) has(u *listURL) bool {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	return len(u.lists) > 0
}

// runList keeps the lists of u fresh until ctx ends.
func (s *Store) runList(ctx context.Context, u *listURL) error {
	defer u.of.client.Close()
	timer := time.NewTimer(u.delay())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-u.awake:
		}
		if err := s.refreshList(ctx, u); err != nil && ctx.Err() == nil {
			s.deps.Logger.WarnContext(ctx, "the revocation list was not renewed", slog.String("mode", u.of.config.Mode), slog.Any("error", err))
		}
		timer.Reset(u.delay())
	}
}

// delay is the time until the next fetch, a little at random so that gateways started
// together do not ask together.
func (u *listURL) delay() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	var d time.Duration
	switch {
	case u.failures > 0:
		d = min(crlFirstRetry<<min(u.failures-1, 10), crlMaxRetry)
	case u.until.IsZero():
		return 0
	default:
		d = max(min(u.of.config.RefreshInterval, u.until.Sub(u.of.now())/2), crlMinRefresh)
	}
	return d - time.Duration(rand.Int64N(int64(d)/10+1)) //nolint:gosec // spreads load; nothing secret
}

// refreshList fetches once. On error the lists before stay, but for those of which there is
// a newer one.
func (s *Store) refreshList(ctx context.Context, u *listURL) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, u.of.config.Timeout)
	defer cancel()
	err := s.ask(ctx, u)
	if err != nil {
		u.failures++
		return fmt.Errorf("revocation list of %s: %w", u.url, err)
	}
	u.failures = 0
	return nil
}

// ask has what the server answers count. A list that is out of date is an error, and counts
// for what it names.
func (s *Store) ask(ctx context.Context, u *listURL) error {
	a, err := u.get(ctx)
	if err != nil {
		return err
	}
	if a.data != nil {
		if err := s.takeLists(ctx, u, a.data); err != nil {
			return err
		}
		u.etag, u.modified = a.etag, a.modified
	}
	return s.checkLists(u)
}

// listAnswer is what a server answered; no data: what it said before.
type listAnswer struct {
	data           []byte
	etag, modified string
}

// get asks the server for what is not known yet (RFC 9110 section 13.1).
func (u *listURL) get(ctx context.Context) (listAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url, http.NoBody)
	if err != nil {
		return listAnswer{}, err
	}
	for name, value := range map[string]string{"If-None-Match": u.etag, "If-Modified-Since": u.modified} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := u.of.client.Do(req)
	if err != nil {
		return listAnswer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	switch {
	case resp.StatusCode == http.StatusNotModified && u.etag+u.modified != "":
		return listAnswer{}, nil
	case resp.StatusCode != http.StatusOK:
		return listAnswer{}, fmt.Errorf("the server answered %s", resp.Status)
	}
	data, err := fetch.Read(resp.Body, int64(u.of.config.MaxBytes), "the answer")
	if err == nil && len(data) == 0 {
		err = errors.New("the answer is empty")
	}
	return listAnswer{data, resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")}, err
}

// takeLists has the lists of an answer count that are newer than those before.
func (s *Store) takeLists(ctx context.Context, u *listURL, data []byte) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	fresh, err := u.take(data, s.clientsOf(u.of).authorities)
	if len(fresh) > 0 {
		s.useLists(ctx)
	}
	for _, l := range fresh {
		s.deps.Logger.InfoContext(ctx, "a revocation list is in force", slog.String("url", u.url), slog.String("issuer", l.issuer),
			slog.Int("revoked", len(l.revoked)), slog.Time("next_update", l.nextDate))
	}
	return err
}

// checkLists says which lists of u are not current, and takes note of when they end.
func (s *Store) checkLists(u *listURL) (err error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	u.until = time.Time{}
	for _, l := range u.lists {
		if u.until.IsZero() || l.nextDate.Before(u.until) {
			u.until = l.nextDate
		}
		err = errors.Join(err, l.current(u.of.now()))
	}
	return err
}

// take keeps the lists of an answer that are newer than those before, and returns them. One
// that is older says nothing: somebody may show it again to have a revocation forgotten.
func (u *listURL) take(data []byte, authorities []*x509.Certificate) (fresh []*list, err error) {
	got := &revocations{lists: map[authority]*list{}}
	if err := got.add(data, authorities); err != nil {
		return nil, err
	}
	next := maps.Clone(u.lists)
	for of, l := range got.lists {
		old := next[of]
		switch {
		case l.thisUpdate.After(u.of.now()):
			err = errors.Join(err, fmt.Errorf("list of %q is good from %s only", l.issuer, l.thisUpdate.Format(time.RFC3339)))
		case old == nil || l.newer(old):
			next[of], fresh = l, append(fresh, l)
		case old.newer(l):
			err = errors.Join(err, fmt.Errorf("list of %q from %s is older than the one in force from %s",
				l.issuer, l.thisUpdate.Format(time.RFC3339), old.thisUpdate.Format(time.RFC3339)))
		}
	}
	u.lists = next
	return fresh, err
}

func (s *Store) clientsOf(f *fetchedLists) *clients {
	return s.current.Load().parts[slices.Index(s.fetched, f)].clients
}

// useLists has the fetched lists count. The files stay as they were read.
func (s *Store) useLists(ctx context.Context) {
	prev := s.current.Load()
	next := &state{notAfter: prev.notAfter}
	for _, p := range prev.parts {
		same := *p
		next.parts = append(next.parts, &same)
	}
	s.use(ctx, next)
}

// Inherit takes over the lists that prev fetched from URLs that s fetches from too. It is
// for a store that is not in use yet.
func (s *Store) Inherit(ctx context.Context, prev *Store) {
	known := prev.listsByURL()
	s.reloading.Lock()
	defer s.reloading.Unlock()
	for _, u := range s.urls() {
		if lists := known[u.url]; lists != nil {
			u.lists = lists
		}
	}
	s.useLists(ctx)
}

// listsByURL returns the newest lists that each URL gave.
func (s *Store) listsByURL() map[string]map[authority]*list {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	out := map[string]map[authority]*list{}
	for _, u := range s.urls() {
		if out[u.url] == nil {
			out[u.url] = map[authority]*list{}
		}
		for of, l := range u.lists {
			if old := out[u.url][of]; old == nil || l.newer(old) {
				out[u.url][of] = l
			}
		}
	}
	return out
}
