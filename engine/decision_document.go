package engine

import (
	"encoding/json"

	"github.com/sallyport/sallyport/engine/authz"
)

// DecisionDocument is a decision in the form of the contract, section 4, with its
// id and, if the answer was refused, the fault.
type DecisionDocument struct {
	ID        string             `json:"id"`
	Revision  string             `json:"revision"`
	Allow     bool               `json:"allow"`
	Reason    string             `json:"reason,omitempty"`
	Labels    map[string]string  `json:"labels,omitempty"`
	Status    int                `json:"status,omitempty"`
	Headers   map[string]string  `json:"headers,omitempty"`
	Body      json.RawMessage    `json:"body,omitempty"`
	Redirect  string             `json:"redirect,omitempty"`
	Upstream  *upstreamDocument  `json:"upstream,omitempty"`
	Response  *responseDocument  `json:"response,omitempty"`
	Challenge *challengeDocument `json:"challenge,omitempty"`
	RateLimit *rateLimitDocument `json:"rate_limit,omitempty"`
	Log       *logDocument       `json:"log,omitempty"`
	Fault     *faultDocument     `json:"fault,omitempty"`
}

type upstreamDocument struct {
	Name          string            `json:"name,omitempty"`
	SetHeaders    map[string]string `json:"set_headers,omitempty"`
	RemoveHeaders []string          `json:"remove_headers,omitempty"`
	TokenExchange *exchangeDocument `json:"token_exchange,omitempty"`
}

type exchangeDocument struct {
	Audience string `json:"audience,omitempty"`
	Scope    string `json:"scope,omitempty"`
}

type responseDocument struct {
	SetHeaders    map[string]string `json:"set_headers,omitempty"`
	RemoveHeaders []string          `json:"remove_headers,omitempty"`
}

type challengeDocument struct {
	Error     string `json:"error,omitempty"`
	Scope     string `json:"scope,omitempty"`
	ACRValues string `json:"acr_values,omitempty"`
	MaxAge    *int   `json:"max_age,omitempty"`
}

type rateLimitDocument struct {
	Key   string `json:"key"`
	Rate  string `json:"rate"`
	Burst int    `json:"burst,omitempty"`
}

type logDocument struct {
	Drop bool `json:"drop"`
}

type faultDocument struct {
	Kind   authz.FaultKind `json:"kind"`
	Detail string          `json:"detail"`
}

// NewDecisionDocument returns d, which was given that id, as a document.
func NewDecisionDocument(id string, d *authz.Decision) *DecisionDocument {
	doc := &DecisionDocument{
		ID: id, Revision: d.Revision, Allow: d.Allow, Reason: d.Reason, Labels: d.Labels,
		Status: d.Status, Headers: d.Headers, Body: d.Body, Redirect: d.Redirect,
	}
	if u := d.Upstream; u.Name != "" || u.SetHeaders != nil || u.RemoveHeaders != nil || u.TokenExchange != nil {
		doc.Upstream = &upstreamDocument{Name: u.Name, SetHeaders: u.SetHeaders, RemoveHeaders: u.RemoveHeaders}
		if t := u.TokenExchange; t != nil {
			doc.Upstream.TokenExchange = &exchangeDocument{Audience: t.Audience, Scope: t.Scope}
		}
	}
	if r := d.Response; r.SetHeaders != nil || r.RemoveHeaders != nil {
		doc.Response = &responseDocument{SetHeaders: r.SetHeaders, RemoveHeaders: r.RemoveHeaders}
	}
	if c := d.Challenge; c != nil {
		doc.Challenge = &challengeDocument{Error: c.Error, Scope: c.Scope, ACRValues: c.ACRValues}
		if c.MaxAge >= 0 {
			doc.Challenge.MaxAge = &c.MaxAge
		}
	}
	if r := d.RateLimit; r != nil {
		doc.RateLimit = &rateLimitDocument{Key: r.Key, Rate: r.Rate, Burst: r.Burst}
	}
	if d.LogDrop {
		doc.Log = &logDocument{Drop: true}
	}
	if f := d.Fault; f != nil {
		doc.Fault = &faultDocument{Kind: f.Kind, Detail: f.Detail}
	}
	return doc
}
