package system

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sallyport/sallyport/bench/peer"
	"github.com/sallyport/sallyport/bench/work"
)

// Finding is how a system answered a case.
type Finding struct {
	Case   string `json:"case"`
	Status int    `json:"status"`
	Wanted int    `json:"wanted"` // of a system that does all of the work
	// Subject is the X-User that reached the upstream.
	Subject string `json:"subject,omitempty"`
	// Why the answer is not the one wanted; empty when it is.
	Why string `json:"why,omitempty"`
}

// Check sends every case to the system at address. An answer that is neither the
// one wanted nor declared for this system is an error: its speed would be that
// of other work.
func (s System) Check(ctx context.Context, address string, cases []work.Case) ([]Finding, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var out []Finding
	for _, c := range cases {
		f, err := ask(ctx, client, address, c)
		if err != nil {
			return nil, fmt.Errorf("check %s, %s: %w", s.Name, c.Name, err)
		}
		if err := s.judge(c, &f); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (s System) judge(c work.Case, f *Finding) error {
	if f.Status == c.Status && (c.Subject == "" || f.Subject == c.Subject) {
		return nil
	}
	d, declared := s.Deviates[c.Name]
	if !declared || d.Status != f.Status {
		return fmt.Errorf("check %s, %s: status %d and subject %q, want %d and %q", s.Name, c.Name, f.Status, f.Subject, c.Status, c.Subject)
	}
	f.Why = d.Why
	return nil
}

// ask sends one case. Where the subject matters, the request claims another one.
func ask(ctx context.Context, client *http.Client, address string, c work.Case) (Finding, error) {
	req, err := http.NewRequestWithContext(ctx, c.Method, "http://"+address+c.Path, http.NoBody)
	if err != nil {
		return Finding{}, err
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if c.Subject != "" {
		req.Header.Set(peer.EchoHeader, "1")
		req.Header.Set("X-User", "somebody-else")
	}
	resp, err := client.Do(req)
	if err != nil {
		return Finding{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return Finding{}, err
	}
	return Finding{Case: c.Name, Status: resp.StatusCode, Wanted: c.Status, Subject: resp.Header.Get(peer.SeenHeader)}, nil
}
