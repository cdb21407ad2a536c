// Package edgestack turns resources of Ambassador Edge Stack into a configuration
// and a policy, and says line by line where these mean something else.
//
// It owns the reading of those resources and the translation, and neither the
// configuration's meaning nor any file. Two promises hold whatever it reads: a key
// that it does not carry over is a difference that is said, and a request that a
// rule of Edge Stack sends through filters which cannot be carried over is denied
// rather than let through.
package edgestack

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
)

// Options are what the resources do not say.
type Options struct {
	// Issuers and Audiences are those of the tokens, by the name of the
	// authenticator; the name "" stands for every other. Edge Stack does not ask for them.
	Issuers, Audiences map[string]string
	// AllowUnsigned carries over that a Filter accepts the algorithm "none".
	AllowUnsigned bool
	// ID is the ambassador_id of the gateway; empty: the one that all resources have in
	// common, else "default".
	ID string
	// Kinds are the kinds of authenticators that there are; nil: those of this build.
	Kinds []string
}

// File is one file of resources.
type File struct {
	Name string
	Data []byte
}

// Difference is one thing that means something else than it did.
type Difference struct {
	File     string
	Line     int
	Resource string // "Filter api/jwt"
	Key      string // below spec
	Text     string
}

// String returns the difference as one line for a person.
func (d Difference) String() string {
	out := d.File
	if d.Line > 0 {
		out = fmt.Sprintf("%s:%d", d.File, d.Line)
	}
	for _, part := range []string{d.Resource, d.Key, d.Text} {
		if part != "" {
			out += ": " + part
		}
	}
	return out
}

// Needed is a file that the configuration names and somebody has to put there.
type Needed struct{ Path, Content string }

// Written is a file that the configuration names and that was made. It holds no secret.
type Written struct {
	Path string
	Data []byte
}

// Result is what was made.
type Result struct {
	Config      []byte
	Policy      []byte // Rego
	Files       []Needed
	Written     []Written
	Differences []Difference
}

// PolicyFile is where the configuration looks for the policy, relative to itself.
const PolicyFile = "policies/edge_stack.rego"

// Import translates the resources of all files together. An error means that some
// of them cannot be read; then there is no result.
func Import(files []File, opts Options) (*Result, error) {
	if opts.Kinds == nil {
		opts.Kinds = kinds()
	}
	r := &report{}
	var all []*resource
	for _, f := range files {
		all = append(all, read(f, r)...)
	}
	all = mine(all, opts.ID)
	once(all, r)
	in := sort(all, opts, r)
	if err := errors.Join(r.errs...); err != nil {
		return nil, err
	}
	out := &output{opts: opts, report: r}
	out.build(in)
	res := &Result{Policy: out.rego(), Files: out.files, Written: out.written}
	var err error
	if res.Config, err = out.yaml(); err != nil {
		return nil, err
	}
	at := func(name string) int { return slices.IndexFunc(files, func(f File) bool { return f.Name == name }) }
	slices.SortStableFunc(r.differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(at(a.File), at(b.File)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	res.Differences = slices.Compact(r.differences)
	return res, nil
}

// once refuses resources of one kind, namespace and name, of which Kubernetes has only one:
// nobody knows which of them is meant.
func once(all []*resource, r *report) {
	seen := map[string]*resource{}
	for _, res := range all {
		first, twice := seen[res.title()]
		if !twice {
			seen[res.title()] = res
			continue
		}
		r.errs = append(r.errs, fmt.Errorf("%s", Difference{
			res.file, res.line, res.title(), "",
			fmt.Sprintf("stands twice, before at %s:%d: leave out the one that is not in force", first.file, first.line),
		}))
	}
}

// kinds are the keys of an authenticator in this build.
func kinds() (out []string) {
	for f := range reflect.TypeFor[config.Authenticator]().Fields() {
		out = append(out, f.Tag.Get("yaml"))
	}
	return out
}

// mine leaves out what is for other gateways of the cluster: their services are not to be
// reached here, and their rules open nothing here.
func mine(all []*resource, id string) []*resource {
	if id == "" {
		id = common(all)
	}
	return slices.DeleteFunc(all, func(res *resource) bool {
		ids := res.ids()
		if res.kind == "Secret" || slices.Contains(ids, id) {
			return false
		}
		res.spec.differ("ambassador_id", "is for %s and not for %s: the %s is left out; --ambassador-id names another gateway", strings.Join(ids, ", "), id, res.kind)
		return true
	})
}

// defaultID is the ambassador_id of whoever has none.
const defaultID = "default"

// common is the ambassador_id that all resources have, the default if there are several
// or none.
func common(all []*resource) string {
	var shared []string
	first := true
	for _, res := range all {
		ids := res.ids()
		switch {
		case res.kind == "Secret":
		case first:
			shared, first = slices.Clone(ids), false
		default:
			shared = slices.DeleteFunc(shared, func(id string) bool { return !slices.Contains(ids, id) })
		}
	}
	if len(shared) == 1 {
		return shared[0]
	}
	return defaultID
}

// inputs are the resources by what they are for.
type inputs struct {
	filters  map[string]*filter // by namespace/name
	logins   []*filter          // those at which people log in, in the order in which they were read
	rules    []*rule
	mappings []*mapping
	contexts map[string]*tlsContext // by namespace/name
	limits   []*limit
	defaults map[string][]label // of every request, by domain

	certified []*rule // hosts whose clients must show a certificate that nobody asks for
}

// sort reads each resource by its kind.
func sort(all []*resource, opts Options, r *report) inputs {
	in := inputs{filters: map[string]*filter{}, contexts: map[string]*tlsContext{}, defaults: map[string][]label{}}
	names := namesOf(all)
	policies := 0
	secrets := secretsOf(all)
	for _, res := range all {
		switch res.kind {
		case "Filter":
			f := readFilter(res, names[res], opts, secrets)
			in.filters[res.key()] = f
			if f.kind == "oidc" {
				in.logins = append(in.logins, f)
			}
		case "FilterPolicy":
			if policies++; policies > 1 {
				res.spec.differ("rules", "the rules of several FilterPolicies are in the order in which they were read; Edge Stack has its own order, so that what one of them filters no other one opens")
			}
			in.rules = append(in.rules, readRules(res)...)
		case "Mapping":
			if m := readMapping(res, names[res]); m != nil {
				in.mappings = append(in.mappings, m)
			}
		case "TLSContext":
			in.contexts[res.key()] = readTLSContext(res)
		case "RateLimit":
			in.limits = append(in.limits, readRateLimit(res)...)
		case "Secret":
		default:
			if res.kind == "Module" {
				maps.Copy(in.defaults, readDefaults(res.spec))
			}
			r.differences = append(r.differences, Difference{res.file, res.line, res.title(), "", "is not carried over: " + advice(res.kind)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(secrets)) {
		secrets[key].rest()
	}
	in.rules, in.certified = cautious(in.rules), uncertified(in.contexts)
	return in
}

// advice says what to do about a kind that is not translated.
func advice(kind string) string {
	switch kind {
	case "Host", "Listener":
		return "say the address and the certificates in listeners"
	case "RateLimitService":
		return "the gateway counts by itself; the limits of another service belong into the policy (rate_limit)"
	case "Module":
		return "it changes all of Edge Stack; go through its keys. Only config.default_labels count"
	case "":
		return "it has no kind"
	}
	return "this kind is not known"
}
