package engine

import (
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine/authz"
)

// parseDecision reads a policy's answer: true, false, or an object of which every
// member is known and of the right type. Anything else is a fault, because an
// obligation that is misspelt would otherwise be one that is not carried out.
//
// An object without allow denies: a rule that does not hold is undefined.
func parseDecision(v ast.Value) (*authz.Decision, *authz.Fault) {
	d := &authz.Decision{}
	switch v := v.(type) {
	case ast.Boolean:
		d.Allow = bool(v)
		return d, nil
	case ast.Object:
		p := decisionParser{}
		p.members("", v, func(key string, v ast.Value) bool { return p.decision(d, key, v) })
		if p.fault == nil {
			p.checkAnswer(d)
		}
		return d, p.fault
	default:
		return nil, &authz.Fault{Kind: authz.FaultType, Detail: "decision is " + ast.ValueName(v) + ", want boolean or object"}
	}
}

// decisionParser keeps the first fault.
type decisionParser struct{ fault *authz.Fault }

func (p *decisionParser) decision(d *authz.Decision, key string, v ast.Value) bool {
	switch key {
	case "allow":
		d.Allow = p.boolean(key, v)
	case "reason":
		d.Reason = p.text(key, v)
	case "labels":
		d.Labels = p.stringMap(key, v)
	case "status":
		d.Status = p.integer(key, v)
	case "headers":
		d.Headers = p.headers(key, v)
	case "body":
		d.Body = p.json(key, v)
	case "redirect":
		d.Redirect = p.redirect(key, v)
	case "log":
		p.members(key, v, func(k string, v ast.Value) bool { return k == "drop" && p.logDrop(d, v) })
	default:
		return p.obligation(d, key, v)
	}
	return true
}

func (p *decisionParser) logDrop(d *authz.Decision, v ast.Value) bool {
	d.LogDrop = p.boolean("log.drop", v)
	return true
}

func (p *decisionParser) obligation(d *authz.Decision, key string, v ast.Value) bool {
	switch key {
	case "upstream":
		p.members(key, v, func(k string, v ast.Value) bool { return p.upstream(&d.Upstream, k, v) })
	case "response":
		p.members(key, v, func(k string, v ast.Value) bool { return p.response(&d.Response, k, v) })
	case "challenge":
		d.Challenge = &authz.Challenge{MaxAge: -1}
		p.members(key, v, func(k string, v ast.Value) bool { return p.challenge(d.Challenge, k, v) })
	case "rate_limit":
		d.RateLimit = &authz.RateLimit{}
		p.members(key, v, func(k string, v ast.Value) bool { return p.rateLimit(d.RateLimit, k, v) })
		if _, err := d.RateLimit.Bucket(); err != nil {
			p.fail(authz.FaultType, err.Error())
		}
	default:
		return false
	}
	return true
}

func (p *decisionParser) upstream(u *authz.UpstreamObligation, key string, v ast.Value) bool {
	path := "upstream." + key
	switch key {
	case "name":
		u.Name = p.text(path, v)
	case "set_headers":
		u.SetHeaders = p.headers(path, v)
	case "remove_headers":
		u.RemoveHeaders = p.headerNames(path, v)
	case "token_exchange":
		u.TokenExchange = &authz.TokenExchange{}
		p.members(path, v, func(k string, v ast.Value) bool { return p.tokenExchange(u.TokenExchange, k, v) })
	default:
		return false
	}
	return true
}

func (p *decisionParser) tokenExchange(t *authz.TokenExchange, key string, v ast.Value) bool {
	switch key {
	case "audience":
		t.Audience = p.text("upstream.token_exchange.audience", v)
	case "scope":
		t.Scope = p.text("upstream.token_exchange.scope", v)
	default:
		return false
	}
	return true
}

func (p *decisionParser) response(r *authz.ResponseObligation, key string, v ast.Value) bool {
	switch key {
	case "set_headers":
		r.SetHeaders = p.headers("response.set_headers", v)
	case "remove_headers":
		r.RemoveHeaders = p.headerNames("response.remove_headers", v)
	default:
		return false
	}
	return true
}

func (p *decisionParser) challenge(c *authz.Challenge, key string, v ast.Value) bool {
	path := "challenge." + key
	switch key {
	case "error":
		c.Error = p.quotable(path, v)
	case "scope":
		c.Scope = p.quotable(path, v)
	case "acr_values":
		c.ACRValues = p.quotable(path, v)
	case "max_age":
		c.MaxAge = p.integer(path, v)
		if c.MaxAge < 0 {
			p.refuse(path, "must not be negative")
		}
	default:
		return false
	}
	return true
}

func (p *decisionParser) rateLimit(r *authz.RateLimit, key string, v ast.Value) bool {
	path := "rate_limit." + key
	switch key {
	case "key":
		r.Key = p.text(path, v)
	case "rate":
		r.Rate = p.text(path, v)
	case "burst":
		if r.Burst = p.integer(path, v); r.Burst < 1 {
			p.refuse(path, "must be 1 or more")
		}
	default:
		return false
	}
	return true
}

// members calls set for each member of an object; set returns false for a name
// that it does not know.
func (p *decisionParser) members(path string, v ast.Value, set func(key string, v ast.Value) bool) {
	obj, ok := v.(ast.Object)
	if !ok {
		p.wrongType(path, v, "object")
		return
	}
	obj.Until(func(k, v *ast.Term) bool {
		key, ok := k.Value.(ast.String)
		if !ok || !set(string(key), v.Value) {
			p.unknown(path, k)
		}
		return p.fault != nil
	})
}

func (p *decisionParser) boolean(path string, v ast.Value) bool {
	b, ok := v.(ast.Boolean)
	if !ok {
		p.wrongType(path, v, "boolean")
	}
	return bool(b)
}

func (p *decisionParser) text(path string, v ast.Value) string {
	s, ok := v.(ast.String)
	if !ok {
		p.wrongType(path, v, "string")
	}
	return string(s)
}

func (p *decisionParser) integer(path string, v ast.Value) int {
	n, ok := v.(ast.Number)
	if !ok {
		p.wrongType(path, v, "number")
		return 0
	}
	i, ok := n.Int()
	if !ok {
		p.refuse(path, "must be an integer")
	}
	return i
}

func (p *decisionParser) stringMap(path string, v ast.Value) map[string]string {
	out := map[string]string{}
	p.members(path, v, func(key string, v ast.Value) bool {
		out[key] = p.text(path+"."+key, v)
		return true
	})
	return out
}

func (p *decisionParser) json(path string, v ast.Value) json.RawMessage {
	x, err := ast.JSON(v)
	if err == nil {
		var raw []byte
		if raw, err = json.Marshal(x); err == nil {
			return raw
		}
	}
	p.refuse(path, "is not a JSON value: "+err.Error())
	return nil
}

func (p *decisionParser) wrongType(path string, v ast.Value, want string) {
	p.fail(authz.FaultType, fmt.Sprintf("%s is %s, want %s", path, ast.ValueName(v), want))
}

// refuse reports a value of the right type that cannot be used.
func (p *decisionParser) refuse(path, why string) {
	p.fail(authz.FaultType, path+" "+why)
}

func (p *decisionParser) unknown(path string, key *ast.Term) {
	if path == "" {
		path = "decision"
	}
	p.fail(authz.FaultUnknownKey, fmt.Sprintf("%s has an unknown member %v", path, key))
}

func (p *decisionParser) fail(kind authz.FaultKind, detail string) {
	if p.fault == nil {
		p.fault = &authz.Fault{Kind: kind, Detail: detail}
	}
}
