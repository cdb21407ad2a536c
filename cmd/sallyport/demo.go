package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
)

func demoVerb() *cobra.Command {
	at := demo.Default()
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run gateway, token issuer and upstream on loopback, or write them as files",
		Long: `Runs the gateway with an issuer that signs tokens for anyone and an upstream that echoes
what it received, all on loopback and in one process, and prints requests to try. With
--dir it writes the configuration, the policy, a key set and tokens to go on from, and ends.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "", "write files into this folder and end")
	cmd.Flags().StringVar(&at.Gateway, "gateway", at.Gateway, "address of the gateway")
	cmd.Flags().StringVar(&at.Admin, "admin", at.Admin, "address of the admin listener")
	cmd.Flags().StringVar(&at.Tokens, "tokens", at.Tokens, "address of the token issuer")
	cmd.Flags().StringVar(&at.Upstream, "upstream", at.Upstream, "address of the upstream")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loopback(at); err != nil {
			return usage(cmd, err)
		}
		if dir != "" {
			return demoFiles(cmd.ErrOrStderr(), dir, at)
		}
		return runDemo(cmd.Context(), cmd.ErrOrStderr(), at)
	}
	return cmd
}

// loopback refuses to listen where others could ask for tokens.
func loopback(at demo.Addresses) error {
	for _, a := range []string{at.Gateway, at.Admin, at.Tokens, at.Upstream} {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return fmt.Errorf("%q is not host:port", a)
		}
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("%s: the demo signs tokens for anyone and listens on loopback addresses only", a)
		}
	}
	return nil
}

func demoFiles(w io.Writer, dir string, at demo.Addresses) error {
	if err := demo.WriteFiles(dir, at, time.Now()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `Wrote %[1]s. Put the address of your API into upstreams.api.endpoints, then:

  sallyport check -c %[1]s/sallyport.yaml
  sallyport serve -c %[1]s/sallyport.yaml
  curl %[2]s/v1/orders/42 -H "Authorization: Bearer $(cat %[1]s/tokens/reader.jwt)"

The tokens are for trying out; put your issuer into authenticators before anybody depends on it.
`, filepath.Clean(dir), at.Gateway)
	return err
}

func runDemo(ctx context.Context, w io.Writer, at demo.Addresses) error {
	dir, err := os.MkdirTemp("", "sallyport-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing to be done about a leftover in the temporary folder
	if err := demo.WriteConfig(dir, at); err != nil {
		return err
	}
	issuer, err := demo.NewIssuer("http://" + at.Tokens)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for address, h := range map[string]http.Handler{at.Tokens: issuer.Handler(), at.Upstream: http.HandlerFunc(demo.Echo)} {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
		g.Go(func() error { return closed(srv.Serve(l)) })
		g.Go(func() error {
			<-ctx.Done()
			return shutdown(ctx, srv)
		})
	}
	g.Go(func() error {
		fmt.Fprint(w, banner(dir, at)) //nolint:errcheck // standard error is gone
		return errors.Join(serve(ctx, filepath.Join(dir, "sallyport.yaml")), ctx.Err())
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// banner says that this is a demo and prints what to try; the same lines stand in
// the README.
func banner(dir string, at demo.Addresses) string {
	text := `
*** This is a demo. Its issuer signs a token for anyone who asks. It listens on loopback only. ***

Configuration and policy: DIR (edit DIR/policies/access/data.json while it runs)
Decisions appear below on standard output; status at http://ADMIN/v1/status, metrics at http://ADMIN/metrics

In another terminal:

  READER=$(curl -s 'TOKENS/token?sub=alice&roles=reader')
  WRITER=$(curl -s 'TOKENS/token?sub=bob&roles=writer')

  curl -s -w '%{http_code}\n' GATEWAY/public/hello                                               # 200, no token needed
  curl -s -w '%{http_code}\n' GATEWAY/v1/orders/42 -H "Authorization: Bearer $READER"            # 200, the upstream sees X-User: alice
  curl -s -w '%{http_code}\n' GATEWAY/v1/orders/42 -H "Authorization: Bearer $READER" -X POST    # 403, a reader may not write
  curl -s -w '%{http_code}\n' GATEWAY/v1/orders/42 -H "Authorization: Bearer $WRITER" -X POST    # 200
  curl -s -w '%{http_code}\n' GATEWAY/v1/orders/42                                               # 401, no token
  curl -s -w '%{http_code}\n' GATEWAY/v1/orders/42 -H "Authorization: Bearer forged"             # 401, bad token
  curl -s -w '%{http_code}\n' GATEWAY/v1/orders/42 -H "Authorization: Bearer $READER" -H 'X-User: root'   # 200, and the upstream still sees alice

Ctrl-C ends it.

`
	return strings.NewReplacer("DIR", dir, "ADMIN", at.Admin, "TOKENS", at.Tokens, "GATEWAY", at.Gateway).Replace(text)
}
