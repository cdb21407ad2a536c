package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// point is a server of revocation lists that answers what tests set.
type point struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Value // http.HandlerFunc
}

func newPoint(t *testing.T) *point {
	t.Helper()
	p := &point{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if h, ok := p.answer.Load().(http.HandlerFunc); ok {
			h(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *point) say(h http.HandlerFunc) { p.answer.Store(h) }

func (p *point) serve(list []byte) {
	p.say(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(list) })
}

func (p *point) status(code int) {
	p.say(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

// fetching is a site whose lists are fetched from p.
func fetching(t *testing.T, mode string) (*site, *point) {
	t.Helper()
	s, p := newSite(t), newPoint(t)
	s.config.CRL = certs.CRL{URLs: []string{p.URL + "/clients.crl"}, Mode: mode}
	return s, p
}

func enter(t *testing.T, s *site, store *certs.Store, who tls.Certificate) error {
	t.Helper()
	_, err := handshake(t, store.TLS(), s.client(who))
	return err
}

func prime(t *testing.T, store *certs.Store) {
	t.Helper()
	if err := store.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func der(t *testing.T, list []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(list)
	if block == nil {
		t.Fatal("no PEM")
	}
	return block.Bytes
}

// TestFetchedListAtStart is the table of a server's first answer, and who gets in with each
// mode. Bob is revoked.
func TestFetchedListAtStart(t *testing.T) {
	until := time.Now().Add(time.Hour)
	extended := func(ids ...int) func(*testing.T, *site, tls.Certificate) []byte {
		return func(t *testing.T, s *site, _ tls.Certificate) []byte {
			return s.clients.SignRevocationList(t, func(l *x509.RevocationList) {
				l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier(ids), Critical: true, Value: []byte{0x30, 3, 0x84, 1, 0xff}}}
			})
		}
	}
	for _, tt := range []struct {
		name  string
		list  func(t *testing.T, s *site, bob tls.Certificate) []byte
		taken bool // it is known of bob that he is revoked
		good  bool // it is known of alice that she is not
	}{
		{"PEM", func(t *testing.T, s *site, bob tls.Certificate) []byte {
			return s.clients.RevocationList(t, until, bob)
		}, true, true},
		{"DER", func(t *testing.T, s *site, bob tls.Certificate) []byte {
			return der(t, s.clients.RevocationList(t, until, bob))
		}, true, true},
		{"out of date", func(t *testing.T, s *site, bob tls.Certificate) []byte {
			return s.clients.RevocationList(t, time.Now().Add(-time.Minute), bob)
		}, true, false},
		{"of tomorrow", func(t *testing.T, s *site, bob tls.Certificate) []byte {
			return s.clients.RevocationList(t, time.Now().Add(26*time.Hour), bob)
		}, false, false},
		{"of another issuer", func(t *testing.T, _ *site, bob tls.Certificate) []byte {
			return certstest.NewCA(t, "another CA").RevocationList(t, until, bob)
		}, false, false},
		{"of a namesake", func(t *testing.T, _ *site, bob tls.Certificate) []byte {
			return certstest.NewCA(t, "client CA").RevocationList(t, until, bob)
		}, false, false},
		{"with a wrong signature", func(t *testing.T, s *site, bob tls.Certificate) []byte {
			list := der(t, s.clients.RevocationList(t, until, bob))
			list[len(list)-1] ^= 1
			return list
		}, false, false},
		{"delta", extended(2, 5, 29, 27), false, false},
		{"indirect", extended(2, 5, 29, 28), false, false},
		{"64 MiB", func(t *testing.T, s *site, bob tls.Certificate) []byte {
			list := s.clients.RevocationList(t, until, bob)
			return append(list, bytes.Repeat([]byte("\n"), 64<<20)...) // good, but for its size
		}, false, false},
		{"cut off", func(t *testing.T, s *site, bob tls.Certificate) []byte {
			list := s.clients.RevocationList(t, until, bob)
			return append(list, list[:100]...)
		}, false, false},
		{"a page", func(*testing.T, *site, tls.Certificate) []byte { return []byte("<html>") }, false, false},
		{"empty", func(*testing.T, *site, tls.Certificate) []byte { return nil }, false, false},
	} {
		for _, mode := range []string{"", "hard", "soft"} {
			t.Run(tt.name+" "+mode, func(t *testing.T) {
				s, p := fetching(t, mode)
				alice, bob := s.clients.Issue(t, "alice", nil), s.clients.Issue(t, "bob", nil)
				p.serve(tt.list(t, s, bob))
				store := s.open(t)
				if err := store.Prime(t.Context()); (err == nil) != tt.good {
					t.Errorf("Prime: %v", err)
				}
				if err := enter(t, s, store, alice); (err == nil) != (tt.good || mode == "soft") || err != nil && !errors.Is(err, certs.ErrStatusUnknown) {
					t.Errorf("alice: %v", err)
				}
				switch err := enter(t, s, store, bob); {
				case tt.taken && !errors.Is(err, certs.ErrRevoked):
					t.Errorf("bob, who is named: %v", err)
				case !tt.taken && (err == nil) != (mode == "soft"):
					t.Errorf("bob, of whom nothing is known: %v", err)
				}
			})
		}
	}
}

// TestFetchedListWithoutServer: no list is there before the first is fetched, and none comes
// from a server that is down or answers otherwise.
func TestFetchedListWithoutServer(t *testing.T) {
	for name, spoil := range map[string]func(*point){
		"down":  func(p *point) { p.Close() },
		"500":   func(p *point) { p.status(http.StatusInternalServerError) },
		"304":   func(p *point) { p.status(http.StatusNotModified) },
		"204":   func(p *point) { p.status(http.StatusNoContent) },
		"hangs": func(p *point) { p.say(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) },
	} {
		for _, mode := range []string{"hard", "soft"} {
			s, p := fetching(t, mode)
			s.config.CRL.Timeout = 200 * time.Millisecond
			spoil(p)
			store := s.open(t)
			alice := s.clients.Issue(t, "alice", nil)
			for _, when := range []string{"before", "after"} {
				if err := enter(t, s, store, alice); (err == nil) != (mode == "soft") {
					t.Errorf("%s, %s, %s the first fetch: %v", name, mode, when, err)
				}
				if err := store.Prime(t.Context()); err == nil || !strings.Contains(err.Error(), s.config.CRL.URLs[0]) {
					t.Errorf("%s: Prime: %v; want an error that names the URL", name, err)
				}
			}
			if got := store.ListsUntil(); got.Unix() != 0 || got.IsZero() {
				t.Errorf("%s: lists until %s, want 1970", name, got)
			}
		}
	}
}

// TestFetchedListRedirect: a list comes from the host that the configuration names.
func TestFetchedListRedirect(t *testing.T) {
	s, p := fetching(t, "hard")
	other := newPoint(t)
	list := s.clients.RevocationList(t, time.Now().Add(time.Hour))
	other.serve(list)
	p.say(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	store := s.open(t)
	if err := store.Prime(t.Context()); err == nil || other.asked.Load() != 0 {
		t.Errorf("redirect to another host: %v after %d questions", err, other.asked.Load())
	}
	p.say(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/new.crl" {
			http.Redirect(w, r, "/new.crl", http.StatusMovedPermanently)
			return
		}
		_, _ = w.Write(list)
	})
	prime(t, store)
	if err := enter(t, s, store, s.clients.Issue(t, "alice", nil)); err != nil {
		t.Errorf("redirect within the host: %v", err)
	}
}

// TestNoListOfTheClientsChoice: what a client's certificate names is never asked.
func TestNoListOfTheClientsChoice(t *testing.T) {
	s, p := fetching(t, "soft")
	inside := newPoint(t)
	p.status(http.StatusNotFound)
	store := s.open(t)
	_ = store.Prime(t.Context()) // fails, and is soft
	mallory := s.clients.Issue(t, "mallory", func(c *x509.Certificate) { c.CRLDistributionPoints = []string{inside.URL} })
	if err := enter(t, s, store, mallory); err != nil {
		t.Fatal(err)
	}
	if err := store.RefreshLists(t.Context()); err == nil || p.asked.Load() < 2 {
		t.Errorf("%v after %d questions to the one that is configured", err, p.asked.Load())
	}
	if n := inside.asked.Load(); n != 0 {
		t.Errorf("the distribution point of the certificate was asked %d times", n)
	}
}

// clock is a clock that tests set.
type clock struct{ atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.Load()) }
func (c *clock) advance(d time.Duration) { c.Add(int64(d)) }

func (s *site) openAt(t *testing.T, c *clock, log *lockedBuffer) *certs.Store {
	t.Helper()
	deps := certs.Deps{Now: c.now}
	if log != nil {
		deps.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	store, err := certs.New(s.config, deps)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// TestFetchedListServerGone: the last list counts to its end, and what it names for ever.
func TestFetchedListServerGone(t *testing.T) {
	for _, mode := range []string{"hard", "soft"} {
		s, p := fetching(t, mode)
		alice, bob := s.clients.Issue(t, "alice", nil), s.clients.Issue(t, "bob", nil)
		at, log := newClock(), &lockedBuffer{}
		until := at.now().Add(time.Hour).Truncate(time.Second)
		p.serve(s.clients.RevocationList(t, until, bob))
		store := s.openAt(t, at, log)
		prime(t, store)
		p.Close()
		if err := store.RefreshLists(t.Context()); err == nil {
			t.Fatal("a list came from a server that is gone")
		}
		if err := enter(t, s, store, alice); err != nil {
			t.Errorf("%s: alice, with the list before: %v", mode, err)
		}
		if got := store.ListsUntil(); !got.Equal(until) {
			t.Errorf("%s: lists until %s, want %s", mode, got, until)
		}
		at.advance(2 * time.Hour)
		if err := enter(t, s, store, alice); (err == nil) != (mode == "soft") {
			t.Errorf("%s: alice, with a list that is out of date: %v", mode, err)
		}
		if err := enter(t, s, store, bob); !errors.Is(err, certs.ErrRevoked) {
			t.Errorf("%s: bob, whom the last list names: %v", mode, err)
		}
		if said := strings.Contains(log.String(), "is let in although"); said != (mode == "soft") {
			t.Errorf("%s: the log says that somebody was let in: %v\n%s", mode, said, log)
		}
	}
}

// TestFetchedListGoesForwardOnly: a list that was replaced does not come back, however well
// it is signed; neither does the list of another authority take its place.
func TestFetchedListGoesForwardOnly(t *testing.T) {
	for _, mode := range []string{"hard", "soft"} {
		s, p := fetching(t, mode)
		second := certstest.NewCA(t, "second CA")
		certstest.Write(t, s.config.ClientCAFile, append(s.clients.PEM(), second.PEM()...))
		bob := s.clients.Issue(t, "bob", nil)
		until := time.Now().Add(time.Hour)
		older := s.clients.RevocationList(t, until)
		p.serve(older)
		store := s.open(t)
		prime(t, store)
		if err := enter(t, s, store, bob); err != nil {
			t.Fatal(err)
		}
		p.serve(s.clients.RevocationList(t, until.Add(time.Minute), bob))
		if err := store.RefreshLists(t.Context()); err != nil {
			t.Fatal(err)
		}
		refused := func(when string) {
			t.Helper()
			if err := enter(t, s, store, bob); !errors.Is(err, certs.ErrRevoked) {
				t.Errorf("%s, %s: bob: %v", mode, when, err)
			}
		}
		refused("after the newer list")
		p.serve(older)
		if err := store.RefreshLists(t.Context()); err == nil || !strings.Contains(err.Error(), "older") {
			t.Errorf("the older list: %v", err)
		}
		refused("after the older list")
		p.serve(second.RevocationList(t, until))
		if err := store.RefreshLists(t.Context()); err != nil {
			t.Error(err)
		}
		refused("after the list of another authority")
	}
}

// TestListsOfOneSecond: the CRL number orders them.
func TestListsOfOneSecond(t *testing.T) {
	s, p := fetching(t, "hard")
	bob := s.clients.Issue(t, "bob", nil)
	at := time.Now().Add(-time.Minute)
	numbered := func(n int64, revoked ...x509.RevocationListEntry) []byte {
		return s.clients.SignRevocationList(t, func(l *x509.RevocationList) {
			l.Number, l.ThisUpdate, l.RevokedCertificateEntries = big.NewInt(n), at, revoked
		})
	}
	first, second := numbered(1), numbered(2, x509.RevocationListEntry{SerialNumber: bob.Leaf.SerialNumber, RevocationTime: at})
	p.serve(first)
	store := s.open(t)
	prime(t, store)
	p.serve(second)
	if err := store.RefreshLists(t.Context()); err != nil {
		t.Error(err)
	}
	p.serve(first)
	if err := store.RefreshLists(t.Context()); err == nil {
		t.Error("number 1 came after number 2")
	}
	if err := enter(t, s, store, bob); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("bob: %v", err)
	}
}

// TestFetchedListBesideFiles: the newer of the two counts, and soft is for authorities that
// have no list in a file.
func TestFetchedListBesideFiles(t *testing.T) {
	s, p := fetching(t, "soft")
	second := certstest.NewCA(t, "second CA")
	certstest.Write(t, s.config.ClientCAFile, append(s.clients.PEM(), second.PEM()...))
	alice, bob, carol := s.clients.Issue(t, "alice", nil), s.clients.Issue(t, "bob", nil), second.Issue(t, "carol", nil)
	at := newClock()
	s.withCRL(t, s.clients.RevocationList(t, at.now().Add(time.Hour), bob))
	p.serve(s.clients.RevocationList(t, at.now().Add(30*time.Minute)))
	store := s.openAt(t, at, nil)
	prime(t, store)
	if err := enter(t, s, store, bob); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("bob, whom the file's newer list names: %v", err)
	}
	p.serve(s.clients.RevocationList(t, at.now().Add(2*time.Hour), alice))
	if err := store.RefreshLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := enter(t, s, store, alice); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("alice, whom the newer fetched list names: %v", err)
	}
	at.advance(3 * time.Hour)
	if err := enter(t, s, store, s.clients.Issue(t, "dave", nil)); !errors.Is(err, certs.ErrStatusUnknown) {
		t.Errorf("dave, whose authority has a list in a file: %v", err)
	}
	if err := enter(t, s, store, carol); err != nil {
		t.Errorf("carol, whose authority has none: %v", err)
	}
}

// TestFetchedListEndsSessions: a session lives no longer than the list that it was made with,
// and as long as that is the same.
func TestFetchedListEndsSessions(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s, p := fetching(t, "hard")
		alice := s.clients.Issue(t, "alice", nil)
		until := time.Now().Add(time.Hour)
		p.serve(s.clients.RevocationList(t, until))
		store := s.open(t)
		prime(t, store)
		client := s.client(alice)
		client.MinVersion, client.MaxVersion, client.ClientSessionCache = version, version, tls.NewLRUClientSessionCache(4)
		for _, step := range []struct {
			name    string
			list    []byte
			resumed bool
			in      bool
		}{
			{"first", nil, false, true},
			{"again", nil, true, true},
			{"new list", s.clients.RevocationList(t, until.Add(time.Minute)), false, true},
			{"with the new list", nil, true, true},
			{"revoked", s.clients.RevocationList(t, until.Add(2*time.Minute), alice), false, false},
		} {
			if step.list != nil {
				p.serve(step.list)
			}
			if err := store.RefreshLists(t.Context()); err != nil {
				t.Fatal(err)
			}
			state, err := handshake(t, store.TLS(), client)
			if (err == nil) != step.in || err == nil && state.DidResume != step.resumed {
				t.Errorf("%s, %s: resumed %v, %v", tls.VersionName(version), step.name, state.DidResume, err)
			}
		}
	}
}

// TestFetchedListsOutliveFiles: a reload of files keeps the lists, as far as their authority
// is one still, and files that are broken keep no list away.
func TestFetchedListsOutliveFiles(t *testing.T) {
	s, p := fetching(t, "hard")
	alice, bob := s.clients.Issue(t, "alice", nil), s.clients.Issue(t, "bob", nil)
	until := time.Now().Add(time.Hour)
	p.serve(s.clients.RevocationList(t, until, bob))
	store := s.open(t)
	prime(t, store)
	p.status(http.StatusInternalServerError)
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := enter(t, s, store, alice); err != nil {
		t.Errorf("alice after a reload: %v", err)
	}
	if err := enter(t, s, store, bob); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("bob after a reload: %v", err)
	}
	certstest.Write(t, s.config.KeyFile, []byte("junk"))
	if err := store.Reload(t.Context()); err == nil {
		t.Fatal("a broken key was taken")
	}
	p.serve(s.clients.RevocationList(t, until.Add(time.Minute), alice, bob))
	if err := store.RefreshLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := enter(t, s, store, alice); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("alice, revoked while files are broken: %v", err)
	}
}

// TestInheritLists: a list goes on with its URL, and goes with it.
func TestInheritLists(t *testing.T) {
	s, p := fetching(t, "soft")
	alice, bob := s.clients.Issue(t, "alice", nil), s.clients.Issue(t, "bob", nil)
	p.serve(s.clients.RevocationList(t, time.Now().Add(time.Hour), bob))
	prev := s.open(t)
	prime(t, prev)
	p.status(http.StatusInternalServerError)

	s.config.CRL.Mode, s.config.MinVersion = "hard", "1.3"
	next := s.open(t)
	next.Inherit(t.Context(), prev)
	prime(t, next)
	if err := enter(t, s, next, alice); err != nil {
		t.Errorf("alice: %v", err)
	}
	if err := enter(t, s, next, bob); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("bob: %v", err)
	}
	if p.asked.Load() != 1 {
		t.Error("a list that was there was fetched before the start")
	}

	s.config.CRL.URLs = []string{p.URL + "/other.crl"}
	other := s.open(t)
	other.Inherit(t.Context(), next)
	if err := enter(t, s, other, alice); !errors.Is(err, certs.ErrStatusUnknown) {
		t.Errorf("alice, with a list whose URL is not configured any more: %v", err)
	}
	s.config.CRL = certs.CRL{}
	without := s.open(t)
	without.Inherit(t.Context(), next)
	if err := enter(t, s, without, bob); err != nil {
		t.Errorf("bob, with no list configured: %v", err)
	}
}

// TestFetchedListRun: lists are renewed before they end, also after the server was down, and
// at once when files change.
func TestFetchedListRun(t *testing.T) {
	s, p := fetching(t, "hard")
	alice := s.clients.Issue(t, "alice", nil)
	asked := make(chan struct{}, 100)
	count := func(h http.HandlerFunc) {
		p.say(func(w http.ResponseWriter, r *http.Request) {
			h(w, r)
			asked <- struct{}{}
		})
	}
	count(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	store := s.open(t)
	if !store.Renews() || store.Staples() {
		t.Fatal("nothing to run")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	<-asked
	fresh := func(lasts time.Duration) []byte {
		return s.clients.SignRevocationList(t, func(l *x509.RevocationList) { l.ThisUpdate, l.NextUpdate = time.Now(), time.Now().Add(lasts) })
	}
	count(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(fresh(3 * time.Second)) })
	for range 3 { // one after the failure, and two renewals
		<-asked
	}
	p.serve(fresh(time.Hour))
	for end := time.Now().Add(10 * time.Second); time.Until(store.ListsUntil()) < time.Minute; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the list for an hour is not in force")
		}
	}
	if err := enter(t, s, store, alice); err != nil {
		t.Errorf("alice: %v", err)
	}
	n := p.asked.Load()
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); p.asked.Load() == n; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a reload of the files fetches nothing")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestFetchedListUnchanged: what did not change is not sent again, and an answer that nobody
// asked for in this way is none.
func TestFetchedListUnchanged(t *testing.T) {
	s, p := fetching(t, "hard")
	var sent atomic.Int64
	at := newClock()
	list := s.clients.RevocationList(t, at.now().Add(time.Hour))
	p.say(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		sent.Add(1)
		_, _ = w.Write(list)
	})
	store := s.openAt(t, at, nil)
	prime(t, store)
	for range 3 {
		if err := store.RefreshLists(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if sent.Load() != 1 {
		t.Errorf("sent %d times", sent.Load())
	}
	at.advance(2 * time.Hour)
	if err := store.RefreshLists(t.Context()); err == nil {
		t.Error("the list is out of date, and its server says that there is no other: no error")
	}
}

// TestFetchedListHTTPS: an https server is verified with ca_file.
func TestFetchedListHTTPS(t *testing.T) {
	s, _ := fetching(t, "hard")
	ca := certstest.NewCA(t, "internal CA")
	list := s.clients.RevocationList(t, time.Now().Add(time.Hour))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(list) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "lists", nil)}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.config.CRL = certs.CRL{URLs: []string{server.URL}}
	if err := s.open(t).Prime(t.Context()); err == nil {
		t.Error("a server of an unknown authority was asked")
	}
	s.config.CRL.CAFile = filepath.Join(t.TempDir(), "internal.pem")
	if _, err := certs.New(s.config, certs.Deps{}); err == nil {
		t.Error("New returned no error although ca_file is missing")
	}
	certstest.Write(t, s.config.CRL.CAFile, ca.PEM())
	store := s.open(t)
	prime(t, store)
	if err := enter(t, s, store, s.clients.Issue(t, "alice", nil)); err != nil {
		t.Errorf("alice: %v", err)
	}
	if !slices.Contains(store.Files(), s.config.CRL.CAFile) {
		t.Error("ca_file is not watched")
	}
	certstest.Write(t, s.config.CRL.CAFile, []byte("junk"))
	if err := store.Reload(t.Context()); err == nil {
		t.Error("a broken ca_file was taken")
	}
}

// TestFetchedListOfOptions: the lists of some names are theirs alone.
func TestFetchedListOfOptions(t *testing.T) {
	s, _ := named(t)
	p := newPoint(t)
	alice := s.clients.Issue(t, "alice", nil)
	p.serve(s.clients.RevocationList(t, time.Now().Add(time.Hour), alice))
	same := s.config.Options[0]
	same.ServerNames = []string{"other.test"}
	s.config.Options = append(s.config.Options, same)
	s.config.Options[0].CRL = certs.CRL{URLs: []string{p.URL}, Mode: "soft"}
	store := s.open(t)
	if names := certs.NewNames(s.config); names.Of("admin.test") == names.Of("other.test") {
		t.Error("a name with other lists has the same settings")
	}
	prime(t, store)
	client := s.client(alice)
	client.ServerName = "admin.test"
	if _, err := handshake(t, store.TLS(), client); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("alice at admin.test: %v", err)
	}
	if got := s.config.Insecure(); len(got) != 1 || got["options[0].crl.mode"] == "" {
		t.Errorf("insecure choices are %v", got)
	}
}

func TestCRLConfig(t *testing.T) {
	good := certs.Config{CertFile: "a", KeyFile: "b", ClientCAFile: "c", CRL: certs.CRL{URLs: []string{"http://pki.example/a.crl"}}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := good.Insecure(); len(got) != 0 {
		t.Errorf("hard is an insecure choice: %v", got)
	}
	soft := good
	soft.OCSP.Mode = "soft"
	soft.Options = []certs.Options{{OCSP: certs.OCSP{Mode: "soft"}}}
	if got := soft.Insecure(); len(got) != 2 || got["ocsp.mode"] == "" || got["options[0].ocsp.mode"] == "" {
		t.Errorf("insecure choices are %v", got)
	}
	for key, changes := range map[string][]func(*certs.CRL){
		"crl.mode": {
			func(c *certs.CRL) { c.Mode = "off" },
			func(c *certs.CRL) { c.Mode, c.URLs = "soft", nil },
		},
		"crl.urls": {
			func(c *certs.CRL) { c.URLs[0] = "ldap://pki.example/a.crl" },
			func(c *certs.CRL) { c.URLs[0] = "file:///a.crl" },
			func(c *certs.CRL) { c.URLs[0] = "http://user:password@pki.example/" },
			func(c *certs.CRL) { c.URLs[0] = "" },
			func(c *certs.CRL) { c.URLs = append(c.URLs, c.URLs[0]) },
		},
		"crl.ca_file":          {func(c *certs.CRL) { c.CAFile = "x" }},
		"crl.timeout":          {func(c *certs.CRL) { c.Timeout = -1 }, func(c *certs.CRL) { c.Timeout = time.Hour }},
		"crl.refresh_interval": {func(c *certs.CRL) { c.RefreshInterval = time.Millisecond }, func(c *certs.CRL) { c.RefreshInterval = 999 * time.Hour }},
		"crl.max_bytes":        {func(c *certs.CRL) { c.MaxBytes = -1 }, func(c *certs.CRL) { c.MaxBytes = 2 << 30 }},
	} {
		for i, change := range changes {
			c := good
			c.CRL.URLs = slices.Clone(c.CRL.URLs)
			change(&c.CRL)
			if problems := setting.Problems(c.Validate()); len(problems) != 1 || problems[0].Key != key {
				t.Errorf("%s[%d]: problems are %v", key, i, problems)
			}
		}
	}
	good.ClientCAFile = ""
	if problems := setting.Problems(good.Validate()); len(problems) != 1 || problems[0].Key != "crl.urls" {
		t.Errorf("without client_ca_file: %v", problems)
	}
}
