package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/app"
	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
)

func explainVerb() *cobra.Command {
	var headers []string
	var token, body, format string
	cmd := &cobra.Command{
		Use:   "explain -c FILE METHOD URL",
		Short: "Judge a request without sending it: the input, the decision, and why",
		Long: `Walks the way of a request: shape, route, authentication, policy. Prints the input
document, the decision, the rules that held, and for each rule that did not the first
condition that failed. Nothing is forwarded and no port is opened.`,
		Args: cobra.ExactArgs(2),
	}
	file := configFlag(cmd)
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "request header 'name: value'; repeatable")
	cmd.Flags().StringVar(&token, "token", "", "bearer token of the request")
	cmd.Flags().StringVar(&body, "body", "", "request body, or @FILE")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p := app.Probe{Method: args[0], URL: args[1]}
		if format != "text" && format != "json" {
			return usage(cmd, errors.New("--format is text or json"))
		}
		var err error
		if p.Headers, err = parseHeaders(headers, token); err != nil {
			return usage(cmd, err)
		}
		if p.Body, err = parseBody(body); err != nil {
			return err
		}
		e, err := app.Explain(cmd.Context(), app.Options{ConfigFile: *file, Stdout: io.Discard, Stderr: cmd.ErrOrStderr()}, p)
		if err != nil {
			return err
		}
		if format == "json" {
			return printJSON(cmd.OutOrStdout(), explainedJSON(e))
		}
		_, err = io.WriteString(cmd.OutOrStdout(), explainedText(e))
		return err
	}
	return cmd
}

func parseHeaders(lines []string, token string) ([]authz.Header, error) {
	var out []authz.Header
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not a header such as 'accept: application/json'", line)
		}
		out = append(out, authz.Header{Name: strings.ToLower(name), Value: strings.TrimSpace(value)})
	}
	if token != "" {
		out = append(out, authz.Header{Name: "authorization", Value: "Bearer " + token})
	}
	return out, nil
}

func parseBody(arg string) ([]byte, error) {
	switch {
	case arg == "":
		return nil, nil
	case strings.HasPrefix(arg, "@"):
		return os.ReadFile(arg[1:])
	default:
		return []byte(arg), nil
	}
}

// explained is the result as JSON.
type explained struct {
	Outcome authz.Outcome `json:"outcome"`
	Status  int           `json:"status,omitempty"` // of the answer; absent when the request would be forwarded
	Error   string        `json:"error,omitempty"`
	Route   string        `json:"route,omitempty"`
	// Headers are what the upstream would be shown of the caller, with credentials cut
	// short.
	Headers map[string]string   `json:"upstream_headers,omitempty"`
	Why     *engine.Explanation `json:"policy,omitempty"`
}

func explainedJSON(e *app.Explained) explained {
	out := explained{Outcome: e.Verdict.Outcome, Route: e.Verdict.Input.Route.Name, Why: e.Why}
	if e.Verdict.Answer != nil {
		out.Status = e.Verdict.Answer.Status
	}
	if e.Verdict.Err != nil {
		out.Error = e.Verdict.Err.Error()
	}
	if f := e.Verdict.Forward; f != nil && len(f.Outbound) > 0 {
		out.Headers = map[string]string{}
		for _, h := range f.Outbound {
			out.Headers[h.Name] = cutShort(h.Value)
		}
	}
	return out
}

// maxShown is how long a word may be that is shown: credentials are longer.
const maxShown = 24

// cutShort keeps the beginning of each word that could be a credential, so that one
// can be told from another and none can be used.
func cutShort(value string) string {
	words := strings.Split(value, " ")
	for i, w := range words {
		if len(w) > maxShown {
			words[i] = w[:4] + "..."
		}
	}
	return strings.Join(words, " ")
}

func explainedText(e *app.Explained) string {
	var b strings.Builder
	s := explainedJSON(e)
	fmt.Fprintf(&b, "outcome: %s", s.Outcome)
	if s.Status != 0 {
		fmt.Fprintf(&b, ", answered with %d", s.Status)
	} else {
		fmt.Fprintf(&b, ", forwarded to upstream %s as %s", e.Verdict.Forward.Upstream, e.Verdict.Input.Request.Path)
	}
	b.WriteByte('\n')
	if s.Error != "" {
		fmt.Fprintf(&b, "because: %s\n", s.Error)
	}
	if s.Route != "" {
		fmt.Fprintf(&b, "route: %s\n", s.Route)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		fmt.Fprintf(&b, "the upstream is shown %s: %s\n", name, s.Headers[name])
	}
	if e.Why == nil {
		b.WriteString("policy: not asked\n")
		return b.String()
	}
	policyText(&b, e.Why)
	return b.String()
}

func policyText(b *strings.Builder, w *engine.Explanation) {
	fmt.Fprintf(b, "entrypoint: %s, revision %s\n", w.Entrypoint, w.Revision)
	if len(w.Uncached) > 0 {
		fmt.Fprintf(b, "not cached: the policy can depend on %s\n", strings.Join(w.Uncached, ", "))
	}
	fmt.Fprintf(b, "\ninput, of which the policy can read %s:\n%s\n", strings.Join(w.Reads, ", "), indented(w.Input))
	answer, err := json.Marshal(w.Answer)
	if err == nil {
		fmt.Fprintf(b, "\ndecision:\n%s\n", indented(answer))
	}
	b.WriteString("\nrules that held:\n")
	for _, r := range w.Held {
		suffix := ""
		if r.Default {
			suffix = " (default)"
		}
		fmt.Fprintf(b, "  %s:%d  %s%s\n", r.File, r.Row, r.Name, suffix)
	}
	b.WriteString("\nrules that did not, and the first condition that failed:\n")
	for _, r := range w.Failed {
		fmt.Fprintf(b, "  %s:%d  %s\n      %s:%d  %s\n", r.File, r.Row, r.Name, r.Condition.File, r.Condition.Row, r.Condition.Text)
		for _, v := range r.Condition.Values {
			value := "undefined"
			if v.JSON != nil {
				value = string(v.JSON)
			}
			fmt.Fprintf(b, "        %s = %s\n", v.Ref, value)
		}
	}
	for _, e := range w.BuiltinErrors {
		fmt.Fprintf(b, "built-in function failed and so was undefined: %s\n", e)
	}
	if w.Incomplete {
		b.WriteString("not all rules were tried: that took too long\n")
	}
}

func indented(raw []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "  ", "  ") != nil {
		return string(raw)
	}
	return "  " + b.String()
}
