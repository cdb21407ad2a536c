package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// maxAnswer bounds an answer in bytes. It repeats the question, in which the token is.
const maxAnswer = 256 << 10

// errWho: the API server does not accept the gateway's own token.
var errWho = errors.New("the API server does not know the gateway; check token_file")

// server is the API server, which is asked a bounded number of questions at a time.
type server struct {
	config Config
	client *fetch.Client
	token  atomic.Pointer[string]
	slots  asking.Turns
}

func newServer(c Config) (*server, error) {
	s := &server{config: c, slots: make(asking.Turns, c.MaxCalls)}
	if err := s.readToken(); err != nil {
		return nil, err
	}
	var err error
	s.client, err = fetch.New(fetch.Config{Whose: c.APIServer, CAFile: c.CAFile, Connections: c.MaxCalls})
	return s, err
}

// readToken reads the gateway's own token. On error the one before stays.
func (s *server) readToken() error {
	data, err := os.ReadFile(s.config.TokenFile)
	if err != nil {
		return fmt.Errorf("read token for %s: %w", s.config.APIServer, err)
	}
	token := string(bytes.TrimSpace(data))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return fmt.Errorf("read token for %s: %s does not hold one token", s.config.APIServer, s.config.TokenFile)
	}
	s.token.Store(&token)
	return nil
}

// review asks one question: the object of a review goes to path, and comes back with
// its status. The context bounds it.
func (s *server) review(ctx context.Context, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	if err := s.slots.Take(ctx, s.config.MaxWait); err != nil {
		return err
	}
	defer s.slots.Give()
	token := s.token.Load()
	err = s.post(ctx, path, *token, body, answer)
	if !errors.Is(err, errWho) {
		return err
	}
	// The kubelet renews the token in time, and the watch of the file may be late.
	if failed := s.readToken(); failed != nil {
		return errors.Join(err, failed)
	}
	if now := s.token.Load(); *now != *token {
		return s.post(ctx, path, *now, body, answer)
	}
	return err
}

func (s *server) post(ctx context.Context, path, token string, body []byte, answer any) error {
	url := strings.TrimSuffix(s.config.APIServer, "/") + path
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated:
	case http.StatusUnauthorized:
		return fmt.Errorf("%s answered %s: %w", url, resp.Status, errWho)
	case http.StatusForbidden:
		return fmt.Errorf("%s answered %s: bind the gateway's service account to the cluster role system:auth-delegator", url, resp.Status)
	default:
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	data, err := fetch.Read(resp.Body, maxAnswer, "answer of "+url)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("answer of %s: %w", url, err)
	}
	return nil
}
