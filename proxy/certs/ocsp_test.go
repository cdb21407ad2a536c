package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// responder answers OCSP questions with what tests set.
type responder struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Value // func(http.ResponseWriter, *ocsp.Request)
}

func newResponder(t *testing.T) *responder {
	t.Helper()
	r := &responder{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked.Add(1)
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the client has gone
		}
		question, err := ocsp.ParseRequest(body)
		if err != nil || req.Header.Get("Content-Type") != "application/ocsp-request" {
			t.Errorf("question %v: %v", req.Header, err)
			return
		}
		r.answer.Load().(func(http.ResponseWriter, *ocsp.Request))(w, question)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *responder) say(answer func(http.ResponseWriter, *ocsp.Request)) { r.answer.Store(answer) }

// bytes answers with the same bytes whatever is asked.
func (r *responder) bytes(der []byte) {
	r.say(func(w http.ResponseWriter, _ *ocsp.Request) { _, _ = w.Write(der) })
}

// by issues a client certificate that names r as its responder.
func (r *responder) by(t *testing.T, ca *certstest.CA, name string) tls.Certificate {
	t.Helper()
	return ca.Issue(t, name, func(c *x509.Certificate) { c.OCSPServer = []string{r.URL} })
}

func signer(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }

// TestOCSP is the table of answers, and what becomes of the client with each mode.
func TestOCSP(t *testing.T) {
	s := newSite(t)
	stranger, team := certstest.NewCA(t, "client CA"), s.clients.Intermediate(t, "team CA")
	delegate, old := s.clients.Issue(t, "responder", signer), s.clients.Issue(t, "old responder", func(c *x509.Certificate) {
		signer(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	foreign := stranger.Issue(t, "responder", signer)
	times := func(this, next time.Duration) func(*ocsp.Response) {
		return func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = time.Now().Add(this), time.Time{}
			if next != 0 {
				r.NextUpdate = time.Now().Add(next)
			}
		}
	}
	status := func(code int) func(*ocsp.Response) {
		return func(r *ocsp.Response) {
			r.Status, r.RevokedAt, r.RevocationReason = code, time.Now().Add(-time.Minute), ocsp.KeyCompromise
		}
	}
	const in, out = "", "refused"
	for _, tt := range []struct {
		name       string
		answer     func(client tls.Certificate) []byte
		hard, soft string
	}{
		{"good", func(c tls.Certificate) []byte { return s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, nil) }, in, in},
		{"good, by a delegate", func(c tls.Certificate) []byte { return s.clients.SignOCSP(t, c.Leaf.SerialNumber, &delegate, nil) }, in, in},
		{"good, fresh, without nextUpdate", func(c tls.Certificate) []byte {
			return s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, times(0, 0))
		}, in, in},
		{"revoked", func(c tls.Certificate) []byte {
			return s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, status(ocsp.Revoked))
		}, out, out},
		{"unknown", func(c tls.Certificate) []byte {
			return s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, status(ocsp.Unknown))
		}, out, out},
		{"signed by the client itself", func(c tls.Certificate) []byte { return s.clients.SignOCSP(t, c.Leaf.SerialNumber, &c, nil) }, out, in},
		{"signed by a delegate that expired", func(c tls.Certificate) []byte { return s.clients.SignOCSP(t, c.Leaf.SerialNumber, &old, nil) }, out, in},
		{"signed by another authority of that name", func(c tls.Certificate) []byte { return stranger.SignOCSP(t, c.Leaf.SerialNumber, nil, nil) }, out, in},
		{"signed by the delegate of another authority", func(c tls.Certificate) []byte { return stranger.SignOCSP(t, c.Leaf.SerialNumber, &foreign, nil) }, out, in},
		{"about the certificate of another authority with that number, by our delegate", func(c tls.Certificate) []byte {
			return stranger.SignOCSP(t, c.Leaf.SerialNumber, &delegate, nil)
		}, out, in},
		{"about the certificate of an intermediate with that number, by our delegate", func(c tls.Certificate) []byte {
			return team.SignOCSP(t, c.Leaf.SerialNumber, &delegate, nil)
		}, out, in},
		{"about another certificate", func(tls.Certificate) []byte { return s.clients.SignOCSP(t, big.NewInt(7), nil, nil) }, out, in},
		{"out of date", func(c tls.Certificate) []byte {
			return s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, times(-2*time.Hour, -time.Minute))
		}, out, in},
		{"of tomorrow", func(c tls.Certificate) []byte {
			return s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, times(time.Hour, 2*time.Hour))
		}, out, in},
		{"old, without nextUpdate", func(c tls.Certificate) []byte {
			return s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, times(-time.Hour, 0))
		}, out, in},
		{"try later", func(tls.Certificate) []byte { return ocsp.TryLaterErrorResponse }, out, in},
		{"not authorized", func(tls.Certificate) []byte { return ocsp.UnauthorizedErrorResponse }, out, in},
		{"garbage", func(tls.Certificate) []byte { return []byte("<html>") }, out, in},
		{"empty", func(tls.Certificate) []byte { return nil }, out, in},
		{"huge", func(tls.Certificate) []byte { return make([]byte, 1<<20) }, out, in},
		{"damaged", func(c tls.Certificate) []byte {
			der := s.clients.SignOCSP(t, c.Leaf.SerialNumber, nil, nil)
			der[len(der)-1] ^= 1
			return der
		}, out, in},
	} {
		for mode, want := range map[string]string{"hard": tt.hard, "soft": tt.soft} {
			t.Run(tt.name+", "+mode, func(t *testing.T) {
				r := newResponder(t)
				client := r.by(t, s.clients, "alice")
				r.bytes(tt.answer(client))
				config := s.config
				config.OCSP.Mode = mode
				store, err := certs.New(config, certs.Deps{})
				if err != nil {
					t.Fatal(err)
				}
				state, err := handshake(t, store.TLS(), s.client(client))
				if (err == nil) != (want == in) {
					t.Errorf("the client got %v, want %q", err, want)
				}
				if err == nil && certs.VerifiedLeaf(&state) == nil {
					t.Error("the handshake verified nothing")
				}
				if r.asked.Load() != 1 {
					t.Errorf("%d questions, want 1", r.asked.Load())
				}
			})
		}
	}
}

// TestOCSPNobodyToAsk: no responder is no answer.
func TestOCSPNobodyToAsk(t *testing.T) {
	s := newSite(t)
	down := newResponder(t)
	down.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer broken.Close()
	for name, urls := range map[string][]string{"none named": nil, "down": {down.URL}, "500": {broken.URL}, "not http": {"ldap://127.0.0.1/"}} {
		client := s.clients.Issue(t, "alice", func(c *x509.Certificate) { c.OCSPServer = urls })
		for mode, in := range map[string]bool{"hard": false, "soft": true, "off": true, "": true} {
			config := s.config
			config.OCSP.Mode = mode
			store, err := certs.New(config, certs.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := handshake(t, store.TLS(), s.client(client)); (err == nil) != in {
				t.Errorf("%s, mode %q: %v", name, mode, err)
			}
		}
	}
}

// TestOCSPCache: an answer counts until nextUpdate, for full and resumed handshakes,
// and through a reload of the files.
func TestOCSPCache(t *testing.T) {
	s := newSite(t)
	r := newResponder(t)
	client := r.by(t, s.clients, "alice")
	at := time.Now()
	s.config.OCSP = certs.OCSP{Mode: "hard"}
	store, err := certs.New(s.config, certs.Deps{Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(status int) {
		r.bytes(s.clients.SignOCSP(t, client.Leaf.SerialNumber, nil, func(o *ocsp.Response) {
			o.Status, o.ThisUpdate, o.NextUpdate, o.RevokedAt = status, at, at.Add(10*time.Minute), at
		}))
	}
	config := s.client(client)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	step := func(what string, in bool, asked int64) {
		t.Helper()
		if _, err := handshake(t, store.TLS(), config); (err == nil) != in || r.asked.Load() != asked {
			t.Errorf("%s: %v after %d questions; want in %v and %d", what, err, r.asked.Load(), in, asked)
		}
	}
	answer(ocsp.Good)
	step("first", true, 1)
	answer(ocsp.Revoked)
	step("again", true, 1)
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	step("after a reload", true, 1)
	at = at.Add(10 * time.Minute)
	answer(ocsp.Revoked)
	step("after nextUpdate", false, 2)
	step("and still", false, 2)
}

// TestOCSPSlow: a responder that does not answer holds its own handshake, for the
// timeout, and no other.
func TestOCSPSlow(t *testing.T) {
	s := newSite(t)
	slow, quick := newResponder(t), newResponder(t)
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	waiting, alice := slow.by(t, s.clients, "bob"), quick.by(t, s.clients, "alice")
	slow.say(func(w http.ResponseWriter, _ *ocsp.Request) {
		arrived <- struct{}{}
		<-release
		_, _ = w.Write(s.clients.SignOCSP(t, waiting.Leaf.SerialNumber, nil, nil))
	})
	quick.say(func(w http.ResponseWriter, q *ocsp.Request) {
		_, _ = w.Write(s.clients.SignOCSP(t, q.SerialNumber, nil, nil))
	})
	s.config.OCSP = certs.OCSP{Mode: "hard", Timeout: 20 * time.Second}
	patient := s.open(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := handshake(t, patient.TLS(), s.client(waiting)); err != nil {
			t.Errorf("who waited for the slow responder: %v", err)
		}
	})
	<-arrived
	if _, err := handshake(t, patient.TLS(), s.client(alice)); err != nil {
		t.Errorf("beside a slow responder: %v", err)
	}
	close(release)
	wg.Wait()

	s.config.OCSP.Timeout = 10 * time.Millisecond
	slow.say(func(http.ResponseWriter, *ocsp.Request) { <-t.Context().Done() })
	if _, err := handshake(t, s.open(t).TLS(), s.client(waiting)); err == nil {
		t.Error("without an answer in time the client is in")
	}
}

// TestOCSPBulkhead: not more than max_calls questions are under way, and the others
// get their turn.
func TestOCSPBulkhead(t *testing.T) {
	s := newSite(t)
	r := newResponder(t)
	var running, most atomic.Int64
	together := make(chan struct{})
	r.say(func(w http.ResponseWriter, q *ocsp.Request) {
		n := running.Add(1)
		defer running.Add(-1)
		if n == 2 && most.CompareAndSwap(0, 2) {
			close(together)
		} else if n > 2 {
			most.Store(n)
		}
		<-together
		_, _ = w.Write(s.clients.SignOCSP(t, q.SerialNumber, nil, nil))
	})
	s.config.OCSP = certs.OCSP{Mode: "hard", Timeout: 20 * time.Second, MaxCalls: 2}
	store := s.open(t)
	var wg sync.WaitGroup
	for i := range 8 {
		client := r.by(t, s.clients, fmt.Sprint("client ", i))
		wg.Go(func() {
			if _, err := handshake(t, store.TLS(), s.client(client)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 2 || r.asked.Load() != 8 {
		t.Errorf("%d of %d questions at once, want 2 of 8", most.Load(), r.asked.Load())
	}
}

// opensslResponder is the responder that comes with openssl, for certificates of ca that
// are good and that are revoked.
func opensslResponder(t *testing.T, ca *certstest.CA, good, revoked tls.Certificate) *httptest.Server {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	certstest.Write(t, file("ca.pem"), ca.PEM())
	certstest.WritePair(t, ca.Issue(t, "responder", signer), file("responder.pem"), file("responder.key"))
	const form = "060102150405Z"
	end, before := time.Now().Add(time.Hour).UTC().Format(form), time.Now().Add(-time.Hour).UTC().Format(form)
	serial := func(c tls.Certificate) string { // of an even number of digits
		text := strings.ToUpper(c.Leaf.SerialNumber.Text(16))
		return strings.Repeat("0", len(text)%2) + text
	}
	certstest.Write(t, file("index.txt"), fmt.Appendf(nil, "V\t%s\t\t%s\tunknown\t/CN=good\nR\t%s\t%s\t%s\tunknown\t/CN=revoked\n",
		end, serial(good), end, before, serial(revoked)))

	// openssl itself would listen on all addresses of the machine.
	var questions atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		name := file(fmt.Sprint("question", questions.Add(1)))
		certstest.Write(t, name, question)
		out, err := exec.CommandContext(r.Context(), "openssl", "ocsp", "-index", file("index.txt"), "-CA", file("ca.pem"), "-nmin", "5",
			"-rsigner", file("responder.pem"), "-rkey", file("responder.key"), "-reqin", name, "-respout", name+".answer").CombinedOutput()
		if err != nil {
			t.Errorf("openssl ocsp: %v: %s", err, out)
		}
		http.ServeFile(w, r, name+".answer")
	}))
	t.Cleanup(front.Close)
	return front
}

// TestOpenSSLResponder asks the responder that comes with openssl.
func TestOpenSSLResponder(t *testing.T) {
	s := newSite(t)
	good, revoked, unknown := s.clients.Issue(t, "good", nil), s.clients.Issue(t, "revoked", nil), s.clients.Issue(t, "unknown", nil)
	front := opensslResponder(t, s.clients, good, revoked)
	for _, mode := range []string{"hard", "soft"} {
		s.config.OCSP = certs.OCSP{Mode: mode, ResponderURL: front.URL}
		store := s.open(t)
		for name, tt := range map[string]struct {
			client tls.Certificate
			in     bool
		}{"good": {good, true}, "revoked": {revoked, false}, "unknown": {unknown, false}} {
			if _, err := handshake(t, store.TLS(), s.client(tt.client)); (err == nil) != tt.in {
				t.Errorf("%s, %s: %v", name, mode, err)
			}
		}
	}
}

func TestOCSPConfig(t *testing.T) {
	good := certs.Config{CertFile: "a", KeyFile: "b", ClientCAFile: "c", OCSP: certs.OCSP{Mode: "hard", ResponderURL: "http://ocsp.example/"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for key, change := range map[string]func(*certs.Config){
		"ocsp.mode":           func(c *certs.Config) { c.OCSP.Mode = "on" },
		"ocsp.responder_url":  func(c *certs.Config) { c.OCSP.ResponderURL = "ocsp.example" },
		"ocsp.timeout":        func(c *certs.Config) { c.OCSP.Timeout = time.Hour },
		"ocsp.max_staple_age": func(c *certs.Config) { c.OCSP.MaxStapleAge = -1 },
		"ocsp.max_calls":      func(c *certs.Config) { c.OCSP.MaxCalls = -1 },
	} {
		c := good
		change(&c)
		if problems := setting.Problems(c.Validate()); len(problems) != 1 || problems[0].Key != key {
			t.Errorf("%s: problems are %v", key, problems)
		}
	}
	good.ClientCAFile = ""
	if problems := setting.Problems(good.Validate()); len(problems) != 1 || problems[0].Key != "ocsp.mode" {
		t.Errorf("without client_ca_file: problems are %v", problems)
	}
}

// TestOCSPStapled: what the client staples is checked like what a responder answers,
// and saves the question only while it is young.
func TestOCSPStapled(t *testing.T) {
	s := newSite(t)
	r := newResponder(t)
	stranger := certstest.NewCA(t, "client CA")
	r.say(func(w http.ResponseWriter, q *ocsp.Request) {
		_, _ = w.Write(s.clients.SignOCSP(t, q.SerialNumber, nil, nil))
	})
	age := func(status int, this, next time.Duration) func(*ocsp.Response) {
		return func(o *ocsp.Response) {
			o.Status, o.ThisUpdate, o.NextUpdate, o.RevokedAt = status, time.Now().Add(-this), time.Now().Add(next), time.Now().Add(-this)
		}
	}
	for _, tt := range []struct {
		name  string
		by    *certstest.CA
		about *big.Int // nil: the client's certificate
		fill  func(*ocsp.Response)
		spoil bool
		in    bool
		asked int64
	}{
		{"good", s.clients, nil, age(ocsp.Good, time.Minute, time.Hour), false, true, 0},
		{"revoked", s.clients, nil, age(ocsp.Revoked, time.Minute, time.Hour), false, false, 0},
		{"revoked long ago", s.clients, nil, age(ocsp.Revoked, 48*time.Hour, time.Hour), false, false, 0},
		{"unknown", s.clients, nil, age(ocsp.Unknown, time.Minute, time.Hour), false, false, 0},
		{"good, old", s.clients, nil, age(ocsp.Good, 2*time.Hour, time.Hour), false, true, 1},
		{"out of date", s.clients, nil, age(ocsp.Good, 30*time.Minute, -time.Minute), false, true, 1},
		{"of tomorrow", s.clients, nil, age(ocsp.Good, -time.Hour, 2*time.Hour), false, true, 1},
		{"by a stranger", stranger, nil, age(ocsp.Good, time.Minute, time.Hour), false, true, 1},
		{"revoked, by a stranger", stranger, nil, age(ocsp.Revoked, time.Minute, time.Hour), false, true, 1},
		{"about another", s.clients, big.NewInt(7), age(ocsp.Good, time.Minute, time.Hour), false, true, 1},
		{"damaged", s.clients, nil, age(ocsp.Good, time.Minute, time.Hour), true, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.config.OCSP = certs.OCSP{Mode: "hard"}
			client := r.by(t, s.clients, "alice")
			if tt.about == nil {
				tt.about = client.Leaf.SerialNumber
			}
			client.OCSPStaple = tt.by.SignOCSP(t, tt.about, nil, tt.fill)
			if tt.spoil {
				client.OCSPStaple[len(client.OCSPStaple)-1] ^= 1
			}
			before := r.asked.Load()
			_, err := handshake(t, s.open(t).TLS(), s.client(client))
			if (err == nil) != tt.in || r.asked.Load()-before != tt.asked {
				t.Errorf("%v after %d questions; want in %v and %d", err, r.asked.Load()-before, tt.in, tt.asked)
			}
			if tt.in {
				return
			}
			s.config.OCSP.Mode = "soft"
			if _, err := handshake(t, s.open(t).TLS(), s.client(client)); err == nil {
				t.Error("in with soft")
			}
		})
	}
}

// TestOCSPStapledReplay: a client that was found revoked does not get in by what was
// said before, also where no responder can be asked any more.
func TestOCSPStapledReplay(t *testing.T) {
	s := newSite(t)
	r := newResponder(t)
	client := r.by(t, s.clients, "alice")
	good := s.clients.SignOCSP(t, client.Leaf.SerialNumber, nil, func(o *ocsp.Response) { o.ThisUpdate = time.Now().Add(-time.Minute) })
	r.bytes(s.clients.SignOCSP(t, client.Leaf.SerialNumber, nil, func(o *ocsp.Response) {
		o.Status, o.RevokedAt = ocsp.Revoked, time.Now().Add(-time.Minute)
	}))
	s.config.OCSP = certs.OCSP{Mode: "soft"}
	store := s.open(t)
	if _, err := handshake(t, store.TLS(), s.client(client)); err == nil {
		t.Fatal("a revoked client is in")
	}
	r.Close()
	client.OCSPStaple = good
	if _, err := handshake(t, store.TLS(), s.client(client)); err == nil {
		t.Error("the revoked client is in by an answer from before")
	}
	// Without one that says otherwise it counts, within its time.
	at := time.Now()
	s.config.OCSP = certs.OCSP{Mode: "hard", MaxStapleAge: 30 * time.Minute}
	store, err := certs.New(s.config, certs.Deps{Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	conf := s.client(client)
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if _, err := handshake(t, store.TLS(), conf); err != nil {
		t.Errorf("with a young staple: %v", err)
	}
	at = at.Add(31 * time.Minute)
	if state, err := handshake(t, store.TLS(), conf); err == nil {
		t.Errorf("with an old staple, resumed %v", state.DidResume)
	}
}
