package sweep

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// head is what the policies of the sweeps begin with: they differ in what
// granted is.
const head = `package gateway

default decision := {"allow": false, "reason": "no rule covers this"}

decision := {
	"allow": true,
	"reason": "granted",
	"upstream": {"set_headers": {"x-user": input.identity.subject}},
} if {
	granted
}
`

// resource is the first segment behind /v1 that the i-th rule is for.
func resource(i int) string { return fmt.Sprintf("r%05d", i) }

// written is a policy with a rule for each resource, as an author writes them or
// a program does: OPA finds the rules that can apply by its index over what is
// compared for equality. Also is a further condition of each.
func written(count int, also string) string {
	var b strings.Builder
	b.WriteString(head)
	for i := range count {
		fmt.Fprintf(&b, `
granted if {
	input.request.segments[1] == %q
	input.request.method == "GET"
	some role in input.identity.claims.roles
	role in {"reader", "writer"}%s
}
`, resource(i), also)
	}
	return b.String()
}

// lookedUp is one rule that finds what it needs in data by the key.
const lookedUp = head + `
granted if {
	rule := data.rules[input.request.segments[1]]
	input.request.method in rule.methods
	some role in input.identity.claims.roles
	role in rule.roles
}
`

// rulesAsData is the same rules as written has, for lookedUp.
func rulesAsData(count int) string {
	var b strings.Builder
	b.WriteString(`{"rules": {`)
	for i := range count {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "\n%q: {\"methods\": [\"GET\"], \"roles\": [\"reader\", \"writer\"]}", resource(i))
	}
	b.WriteString("\n}}\n")
	return b.String()
}

// resources asks for each of count resources in turn, in steps that do not touch
// neighbours one after the other.
func resources(count int) func([]byte, int64) []byte {
	const step = 7_919 // prime, so that every resource has its turn
	return func(dst []byte, n int64) []byte {
		dst = fmt.Appendf(dst, "/v1/%s/orders/", resource(int(n*step%int64(count))))
		return fmt.Append(dst, n%100)
	}
}

// known is a policy that looks a user up in data.
const known = head + `
granted if {
	user := data.users[input.identity.subject]
	user.active
	input.request.method in user.methods
}
`

// active is the condition of a rule that the caller is a user.
const active = "\n\tdata.users[input.identity.subject].active"

// users is data of about size bytes, those who have the work's tokens among them.
func users(size int, revision string) string {
	var b strings.Builder
	b.Grow(size + 256)
	fmt.Fprintf(&b, `{"revision": %q, "users": {`, revision)
	for i := 0; b.Len() < size; i++ {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "\n\"user-%05d\": {\"active\": true, \"methods\": [\"GET\", \"HEAD\"], \"tenant\": \"tenant-%d\", \"level\": %d}", i, i%500, i%7)
	}
	b.WriteString("\n}}\n")
	return b.String()
}

// bundle makes a bundle of files, as OPA reads them.
func bundle(files map[string]string, revision string) ([]byte, error) {
	all := maps.Clone(files)
	all[".manifest"] = fmt.Sprintf(`{"revision": %q}`, revision)
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	archive := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		header := &tar.Header{Name: "/" + name, Mode: 0o644, Size: int64(len(all[name])), ModTime: time.Unix(0, 0)}
		if err := archive.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("make a bundle: %w", err)
		}
		if _, err := archive.Write([]byte(all[name])); err != nil {
			return nil, fmt.Errorf("make a bundle: %w", err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("make a bundle: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("make a bundle: %w", err)
	}
	return b.Bytes(), nil
}
