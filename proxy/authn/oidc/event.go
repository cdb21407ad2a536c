package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// SharedSignals has the gateway take the provider's security events (OpenID Shared
// Signals Framework 1.0, push delivery of RFC 8935): what CAEP and RISC say of a session
// or an account ends sessions here.
type SharedSignals struct {
	// Path is the endpoint_url to give the provider's stream; security-events beside
	// redirect_path by default.
	Path string `yaml:"path"`
	// Audiences are the aud of the stream, one of which each event must have; client_id
	// by default.
	Audiences []string `yaml:"audiences"`
}

// filled returns a copy with the defaults; nil for nil.
func (s *SharedSignals) filled(beside, clientID string) *SharedSignals {
	if s == nil {
		return nil
	}
	c := *s
	if c.Path == "" {
		c.Path = beside
	}
	if c.Audiences == nil {
		c.Audiences = []string{clientID}
	}
	return &c
}

func (s *SharedSignals) validate(taken []string) error {
	if s == nil {
		return nil
	}
	var errs []error
	if addr, ok := returnAddress(s.Path); !ok || addr != s.Path || strings.ContainsAny(s.Path, "?%") {
		errs = append(errs, setting.Problemf("path", "%q is not a plain path such as /oauth2/security-events", s.Path))
	}
	if slices.Contains(taken, s.Path) {
		errs = append(errs, setting.Problemf("path", "%s serves something else already", s.Path))
	}
	if len(s.Audiences) == 0 || slices.Contains(s.Audiences, "") {
		errs = append(errs, setting.Problemf("audiences", "is empty or has an empty value: an event for somebody else must not count here"))
	}
	return errors.Join(errs...)
}

// maxEventAge is how old an event may be. A provider that could not reach the gateway
// sends it late; an event that is shown twice ends sessions twice, which harms little.
const maxEventAge = 24 * time.Hour

// eventError is what RFC 8935 section 2.4 calls an error code, and what it means.
type eventError struct{ code, text string }

func (e *eventError) Error() string { return e.text }

func refuseEvent(code, format string, args ...any) error {
	return &eventError{code, fmt.Sprintf(format, args...)}
}

// securityEvents is where the provider sends its events.
func (a *Authenticator) securityEvents(ctx context.Context, r *authn.Request) *authn.Answer {
	ended, err := a.takeEvent(ctx, r)
	answer := &authn.Answer{Status: http.StatusAccepted, Why: "security event", Headers: []authz.Header{{Name: "cache-control", Value: "no-store"}}}
	if err == nil {
		if ended {
			a.count.loggedOut.Add(1)
		}
		return answer
	}
	a.logger.WarnContext(ctx, "security event refused", slog.Any("error", err))
	answer.Why = err.Error()
	var refused *eventError
	if !errors.As(err, &refused) { // to be sent again
		answer.Status = http.StatusServiceUnavailable
		return answer
	}
	answer.Status = http.StatusBadRequest
	answer.Body, _ = json.Marshal(map[string]string{"err": refused.code, "description": refused.text})
	answer.Headers = append(answer.Headers, authz.Header{Name: "content-type", Value: "application/json"}, authz.Header{Name: "content-language", Value: "en"})
	return answer
}

// takeEvent checks a security event token and carries it out. An error that is no
// eventError is ours, and not the event's.
func (a *Authenticator) takeEvent(ctx context.Context, r *authn.Request) (ended bool, err error) {
	media, _, _ := strings.Cut(r.Header("content-type"), ";")
	if r.Method != http.MethodPost || mediaType(media) != "secevent+jwt" || r.Body == nil {
		return false, refuseEvent("invalid_request", "POST one security event token as application/secevent+jwt")
	}
	data, truncated, err := r.Body.Buffer(ctx)
	if err != nil || truncated || len(data) > maxForm {
		return false, refuseEvent("invalid_request", "the token is too large or was cut off")
	}
	t, err := a.verifier.Verify(ctx, string(data))
	switch {
	case errors.Is(err, authn.ErrInvalid):
		return false, fmt.Errorf("%w: %w", err, refuseEvent("authentication_failed", "the token is not one of this issuer, or is not signed by it"))
	case err != nil:
		return false, err
	}
	if err := a.checkEvent(t, r.Now); err != nil {
		return false, err
	}
	return a.carryOutEvents(ctx, t)
}

func mediaType(text string) string {
	return strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "application/")
}

// checkEvent checks what is common to security event tokens (RFC 8417 section 2.2). They
// are good for no time of their own; exp stands in none, and counts where it does.
func (a *Authenticator) checkEvent(t *jwt.Token, now time.Time) error {
	if t.Type != "secevent+jwt" { // RFC 8417 section 2.3; the type tells it from every other token of the issuer
		return refuseEvent("invalid_request", "type %.32q is not secevent+jwt", t.Type)
	}
	audiences, err := jwt.Strings(t.Claims, "aud")
	if err != nil || !slices.ContainsFunc(audiences, func(s string) bool { return slices.Contains(a.config.SharedSignals.Audiences, s) }) {
		return refuseEvent("invalid_audience", "it is for %.64q", audiences)
	}
	if id, ok := t.Claims["jti"].(string); !ok || id == "" {
		return refuseEvent("invalid_request", "jti is missing or not a string")
	}
	check := a.checkBegun
	if _, there := t.Claims["exp"]; there {
		check = a.checkTimes
	}
	if err := check(t.Claims, now); err != nil {
		return refuseEvent("invalid_request", "%s", err)
	}
	if issued, _ := jwt.Date(t.Claims, "iat"); now.Sub(issued) > maxEventAge {
		return refuseEvent("invalid_request", "it was issued more than %s ago", maxEventAge)
	}
	return nil
}

// carryOutEvents ends the sessions that the events of a token are about. All are looked
// at before one is carried out.
func (a *Authenticator) carryOutEvents(ctx context.Context, t *jwt.Token) (ended bool, err error) {
	events, _ := t.Claims["events"].(map[string]any)
	if len(events) == 0 {
		return false, refuseEvent("invalid_request", "events is missing or empty")
	}
	var all []subject
	for kind, value := range events {
		members, ok := value.(map[string]any)
		if !ok {
			return false, refuseEvent("invalid_request", "event %.128q is not an object", kind)
		}
		reach := reachOf(kind, members)
		a.logger.InfoContext(ctx, "security event", slog.String("event", kind), slog.Any("jti", t.Claims["jti"]), slog.Bool("ends_sessions", reach != nothing))
		if reach == nothing {
			continue
		}
		about, there := t.Claims["sub_id"]
		if !there || about == nil {
			about = members["subject"] // before sub_id (RFC 9493) had its place
		}
		who, err := a.subjectOf(about, reach)
		if err != nil {
			return false, err
		}
		all = append(all, who)
	}
	for _, who := range all {
		if err := a.store.Revoke(ctx, a.config.Issuer, who.sid, who.sub); err != nil {
			return false, fmt.Errorf("%w: end sessions: %w", authn.ErrUnavailable, err)
		}
	}
	return len(all) > 0, nil
}

// reach says which sessions an event ends.
type reach int

const (
	nothing    reach = iota
	oneSession       // the one that is named, all of the user if none is
	everything       // all of the user
)

const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
)

// reachOf reads an event of CAEP 1.0 or RISC 1.0. What takes something from a user ends
// sessions, so that the next login finds out how things are now; a policy could not know.
func reachOf(kind string, members map[string]any) reach {
	switch kind {
	case caep + "session-revoked":
		return oneSession
	case caep + "credential-change":
		if members["change_type"] == "create" {
			return nothing
		}
		return everything
	case caep + "device-compliance-change":
		if members["current_status"] == "compliant" {
			return nothing
		}
		return everything
	case caep + "assurance-level-change":
		if members["change_direction"] == "increase" {
			return nothing
		}
		return everything
	case caep + "token-claims-change",
		risc + "account-disabled", risc + "account-purged", risc + "account-credential-change-required", risc + "credential-compromise", risc + "sessions-revoked":
		return everything
	}
	return nothing
}

// subject is whose sessions end, as session.Store has it.
type subject struct{ sid, sub string }

// subjectOf reads a subject identifier (RFC 9493) of a user, of a session, or of both.
func (a *Authenticator) subjectOf(about any, r reach) (who subject, err error) {
	id, _ := about.(map[string]any)
	user, session := id, map[string]any(nil)
	if id["format"] == "complex" { // Shared Signals Framework 1.0 section 3.2
		user, _ = id["user"].(map[string]any)
		session, _ = id["session"].(map[string]any)
	}
	if session["format"] == "opaque" && r == oneSession {
		if who.sid, _ = session["id"].(string); who.sid != "" {
			return who, nil
		}
	}
	if user["format"] == "iss_sub" && user["iss"] == a.config.Issuer {
		who.sub, _ = user["sub"].(string)
	}
	if who.sub == "" {
		return who, refuseEvent("invalid_request", "the subject is not known here: it must be a user as iss_sub of %s, or for session-revoked a session as opaque", a.config.Issuer)
	}
	return who, nil
}
