package session

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// TestRedisSaysNonsense: whoever writes to Redis ends sessions, and makes none.
func TestRedisSaysNonsense(t *testing.T) {
	redis := newServer(t)
	a := redis.replica("login")
	now := time.Now()
	c := a.redis
	text, err := encode(&Session{ID: "x", Provider: "login", Subject: "root", Created: now.UnixMilli(), Used: now.UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(key, sealed string) error{
		"a list": func(key, _ string) error {
			return errors.Join(c.Del(t.Context(), key).Err(), c.LPush(t.Context(), key, "x").Err())
		},
		"nothing":    func(key, _ string) error { return c.Set(t.Context(), key, "", 0).Err() },
		"not sealed": func(key, _ string) error { return c.Set(t.Context(), key, text, 0).Err() },
		"cut":        func(key, sealed string) error { return c.Set(t.Context(), key, sealed[:len(sealed)-1], 0).Err() },
		"longer":     func(key, sealed string) error { return c.Set(t.Context(), key, sealed+"x", 0).Err() },
		"twice":      func(key, sealed string) error { return c.Set(t.Context(), key, sealed+sealed, 0).Err() },
		"32 MiB": func(key, sealed string) error {
			return c.Set(t.Context(), key, sealed+strings.Repeat("x", 32<<20), 0).Err()
		},
		"sealed for cookies":    func(key, _ string) error { return c.Set(t.Context(), key, a.keys.Seal("session login", text), 0).Err() },
		"sealed for another ID": func(key, _ string) error { return c.Set(t.Context(), key, a.keys.Seal(a.purpose("x"), text), 0).Err() },
		"of another ID, in place": func(key, _ string) error {
			return c.Set(t.Context(), key, a.keys.Seal(a.purposeOf(strings.TrimPrefix(key, a.prefix+"session:")), text), 0).Err()
		},
	} {
		v := someone(0)
		j := logIn(t, a, v, now)
		key := a.key(v.ID)
		sealed, err := c.Get(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := load(t, a, j, now); err != nil { // it is among those that were opened
			t.Fatal(err)
		}
		if err := plant(key, sealed); err != nil {
			t.Fatal(err)
		}
		if s, err := load(t, a, j, now); s != nil || !errors.Is(err, ErrNone) && !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		if s, err := a.Renew(t.Context(), j.visit(now), v, func(_ context.Context, s *Session) (*Session, error) { return s.Copy(), nil }); s != nil || err == nil {
			t.Errorf("%s: renewed to %+v", name, s)
		}
	}
	index := a.indexes("https://idp.example", "s1", "")[0]
	if err := errors.Join(c.Del(t.Context(), index).Err(), c.Set(t.Context(), index, "x", 0).Err()); err != nil {
		t.Fatal(err)
	}
	if err := a.Revoke(t.Context(), "https://idp.example", "s1", ""); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("sessions of an index that is none were ended: %v", err)
	}
	if err := a.Create(t.Context(), jar{}.visit(now), someone(0)); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("a session that nobody could end is kept: %v", err)
	}
}

// TestLogoutDuringRenewal: whichever of them is done first, the session is over.
func TestLogoutDuringRenewal(t *testing.T) {
	shared := newServer(t)
	now := time.Now()
	for where, store := range map[string]Store{"cookies": newBrowser(t, "login", nil, func() time.Time { return now }), "Redis": shared.replica("login")} {
		for how, end := range map[string]func(j jar, s *Session) error{
			"logout": func(j jar, s *Session) error { return store.End(t.Context(), j.visit(now), s) },
			"sid":    func(jar, *Session) error { return store.Revoke(t.Context(), "https://idp.example", "s1", "") },
			"sub":    func(jar, *Session) error { return store.Revoke(t.Context(), "https://idp.example", "", "alice") },
			"login":  func(j jar, _ *Session) error { return store.Create(t.Context(), j.visit(now), someone(0)) },
		} {
			now = now.Add(2 * time.Second)
			j := logIn(t, store, someone(0), now)
			now = now.Add(time.Second)
			s, err := load(t, store, j, now)
			if err != nil {
				t.Fatal(err)
			}
			r := j.visit(now)
			next, err := store.Renew(t.Context(), r, s, func(_ context.Context, s *Session) (*Session, error) {
				next := s.Copy()
				next.AccessToken, next.RefreshToken = "at2", "rt2"
				return next, end(j, s)
			})
			if next != nil || !errors.Is(err, ErrNone) {
				t.Errorf("%s, %s: renewed to %+v, %v", where, how, next, err)
			}
			j.take(r)
			for name, value := range j {
				if s, err := load(t, store, jar{name: value}, now); !errors.Is(err, ErrNone) {
					t.Errorf("%s, %s: the session is back: %+v, %v", where, how, s, err)
				}
			}
		}
	}
}

// FuzzCookies: whatever a browser sends is read without a crash, is no session unless
// it is the very text that was sealed, and what is written comes back.
func FuzzCookies(f *testing.F) {
	keys, err := NewKeys(nil)
	if err != nil {
		f.Fatal(err)
	}
	b := NewBrowser("login", Default(), keys, Deps{Now: func() time.Time { return epoch }})
	r := jar{}.visit(epoch)
	if err := b.Create(f.Context(), r, someone(4000)); err != nil {
		f.Fatal(err)
	}
	j := jar{}
	j.take(r)
	good := j.visit(epoch).Headers[0].Value
	for _, seed := range []string{
		good, good + "; a=b", strings.ReplaceAll(good, "; ", ";"), "__Host-sallyport-login=1.", "__Host-sallyport-login=5.a; __Host-sallyport-login.4=",
		"__Host-sallyport-login=-1.x", "__Host-sallyport-login=99999999999999999999.x", "__Host-sallyport-login.99999999999999999999=x", "=;=;=",
		"__Host-sallyport-login", "__Host-sallyport-login=1.AQ", "__Host-sallyport-login~0=1.x; __Host-sallyport-login~0.1=y", "\xff=\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := &authn.Request{Now: epoch, Scheme: "https", Headers: []authz.Header{{Name: "cookie", Value: header}}}
		s, err := b.Load(t.Context(), r)
		if (s == nil) != errors.Is(err, ErrNone) || s != nil && err != nil {
			t.Errorf("%+v, %v", s, err)
		}
		if s != nil && !strings.Contains(header, j["__Host-sallyport-login"]) {
			t.Errorf("%q is a session", header)
		}
		b.cookies.Tags(r, 4)
		if err := b.cookies.Write(r, base64.RawURLEncoding.EncodeToString([]byte(header)), time.Hour); err != nil {
			return
		}
		for _, h := range r.Response {
			if strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
				t.Errorf("sets %q", h.Value)
			}
		}
		back := jar{}
		back.take(r)
		if got := b.cookies.Read(back.visit(epoch)); got != base64.RawURLEncoding.EncodeToString([]byte(header)) {
			t.Errorf("wrote %q, read %q", header, got)
		}
		_, spent := r.Spent()
		for _, name := range spent {
			if !authn.OwnCookie(name) {
				t.Errorf("takes %q, which is not ours", name)
			}
		}
		if left := authn.WithoutCookies(header, nil); slices.ContainsFunc(strings.Split(left, ";"), func(pair string) bool {
			name, _, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			return authn.OwnCookie(strings.Trim(name, " \t"))
		}) {
			t.Errorf("an upstream gets %q", left)
		}
	})
}

// TestCookiesThatGo: a browser ignores the deletion of a cookie whose name demands
// attributes that the deletion lacks, and keeps one whose domain it does not name.
func TestCookiesThatGo(t *testing.T) {
	for _, tc := range []struct{ scheme, domain, name, attributes string }{
		{"https", "", "__Host-sallyport-login", "; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0"},
		{"https", "example.com", "__Secure-sallyport-login", "; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=example.com; Max-Age=0"},
		{"http", "", "sallyport-insecure-login", "; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"},
	} {
		c := NewCookies("login", tc.domain)
		names := []string{tc.name, tc.name + ".1", tc.name + ".2", tc.name + ".07", tc.name + ".x"}
		r := &authn.Request{Scheme: tc.scheme, Host: "localhost", Headers: []authz.Header{{
			Name: "cookie", Value: strings.Join(names, "=x; ") + "=x; " + tc.name + "2=x; a=" + tc.name + "; " + tc.name + ".\"=x; other=1",
		}}}
		c.Clear(r)
		var got []string
		for _, h := range r.Response {
			if name, attributes, _ := strings.Cut(h.Value, "="); h.Name == "set-cookie" {
				if got = append(got, name); attributes != tc.attributes {
					t.Errorf("%s goes with %q, want %q", name, attributes, tc.attributes)
				}
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("gone are %q, want %q", got, names)
		}
	}
}
