package edgestack

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/proxy/authn/apikey"
)

// secret is a Secret of Kubernetes. Its values go nowhere but into hashes.
type secret struct {
	top    *section
	values map[string]string // decoded
	bad    []string          // keys whose values are not base64
	used   bool
}

// secretsOf reads the Secrets among all, by namespace/name.
func secretsOf(all []*resource) map[string]*secret {
	out := map[string]*secret{}
	for _, res := range all {
		if res.kind != "Secret" {
			continue
		}
		s := &secret{top: res.spec, values: map[string]string{}}
		for key, text := range res.spec.pairs("data") {
			value, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
			if err != nil {
				s.bad = append(s.bad, key)
				continue
			}
			s.values[key] = string(value)
		}
		slices.Sort(s.bad)
		maps.Copy(s.values, res.spec.pairs("stringData")) // as Kubernetes does
		out[res.key()] = s
	}
	return out
}

// rest says of a Secret that no filter reads that it is not carried over.
func (s *secret) rest() {
	if !s.used {
		s.top.differ("", "is not carried over: no filter of type APIKey reads it; what else the configuration names are files")
	}
}

// apiKeys makes an authenticator whose keys stand in a file, by their hashes.
func (f *filter) apiKeys(s *section, opts Options, secrets map[string]*secret) {
	f.kind = "api_key"
	if !slices.Contains(opts.Kinds, f.kind) {
		f.shut(s, "", "a filter of type APIKey is not carried over: this build has no authenticator of kind api_key")
		return
	}
	file := "secrets/" + f.name + "/api-keys.yaml"
	f.auth = map[string]any{"file": file, "realm": f.spec.res.name + "." + f.spec.res.namespace}
	if header := s.text("httpHeader"); header != "" {
		f.auth["header"] = strings.ToLower(header)
	}
	k := keyFile{path: file, hashes: map[string]bool{}}
	items := s.subs("keys")
	for _, item := range items {
		k.item(item, secrets)
	}
	if len(items) == 0 {
		f.closed = "a filter of type APIKey without keys lets nobody in"
		s.differ("keys", "is missing: the routes with this filter deny everything")
		return
	}
	if len(k.entries) > 0 {
		f.written = []Written{{file, k.text()}}
	} else {
		f.needed = []Needed{{file, "the hashes of the API keys (sallyport key new makes an entry; for a key that there is: id, subject and sha256)"}}
	}
	s.differ("", "the header with the key ends at the gateway; set forward_credentials: true on the routes whose service reads it")
}

// keyFile is a file of keys while it is made.
type keyFile struct {
	path    string
	entries []keyEntry
	hashes  map[string]bool
}

type keyEntry struct {
	ID      string `yaml:"id"`
	SHA256  string `yaml:"sha256"`
	Subject string `yaml:"subject"`
}

func (k *keyFile) item(item *section, secrets map[string]*secret) {
	defer item.rest()
	item.without("a secret does not stand in the configuration: add its hash to "+k.path+" with an id and a subject", "key")
	name := item.text("secretName")
	if name == "" {
		return
	}
	s := secrets[item.res.namespace+"/"+name]
	if s == nil {
		item.differ("secretName", "the Secret %s/%s is not in these files: give it too, or put the hashes of its keys into %s", item.res.namespace, name, k.path)
		return
	}
	s.used = true
	for _, key := range s.bad {
		item.differ("secretName", "the value of %q in the Secret is not base64: it is left out", key)
	}
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		k.add(item, name+"/"+key, s.values[key])
	}
}

// add takes the hash of a key. Who it belongs to is not in Edge Stack's resources, so
// that its place has to stand for it.
func (k *keyFile) add(item *section, id, value string) {
	hash, err := apikey.Hash(value)
	switch {
	case err != nil:
		item.differ("secretName", "the key %s %v: it is left out, hand out a new one", id, err)
	case k.hashes[hash]:
		item.differ("secretName", "the key %s stands here twice: the first counts", id)
	default:
		k.hashes[hash] = true
		k.entries = append(k.entries, keyEntry{ID: id, SHA256: hash, Subject: id})
	}
}

const keysHead = `# Written by "sallyport import edge-stack": the keys by their hashes. The subject is the
# place of the key in its Secret; put whose key it is there.
`

func (k *keyFile) text() []byte {
	b := bytes.NewBufferString(keysHead)
	for _, e := range k.entries {
		fmt.Fprintf(b, "- {id: %q, subject: %q, sha256: %s}\n", e.ID, e.Subject, e.SHA256)
	}
	return b.Bytes()
}
