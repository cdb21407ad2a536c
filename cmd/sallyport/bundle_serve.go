package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/bundles/server"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/telemetry"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/watch"
)

func bundleServe() *cobra.Command {
	var cfg server.Config
	var address, cert, key string
	cmd := &cobra.Command{
		Use:   "serve DIRECTORY",
		Short: "Serve a folder of policies as bundles, rebuilt when its files change",
		Long: `Serves each subfolder NAME of the folder as the bundle /bundles/NAME.tar.gz, or with
--name the whole folder as one bundle. Clients may poll with ETags or long poll. A
folder that does not compile any more keeps its last good bundle.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1:8181", "host:port to listen on")
	cmd.Flags().StringVar(&cert, "tls-cert", "", "PEM file of the server's certificate; without it, plain HTTP")
	cmd.Flags().StringVar(&key, "tls-key", "", "PEM file of the certificate's key")
	cmd.Flags().StringVar(&cfg.Name, "name", "", "serve the whole folder as one bundle of this name")
	cmd.Flags().StringVar(&cfg.TokenFile, "token-file", "", "file with the bearer token that clients must send")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	signing := signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if cfg.Signing, err = signing(); err != nil {
			return err
		}
		cfg.Directory = args[0]
		return serveBundles(cmd.Context(), cfg, address, cert, key)
	}
	return cmd
}

func serveBundles(ctx context.Context, cfg server.Config, address, cert, key string) error {
	logger := telemetry.NewLogger(telemetry.Default().Log, os.Stderr)
	caps, err := capabilities() //nolint:contextcheck // makes no request and starts nothing
	if err != nil {
		return err
	}
	s, err := server.New(ctx, cfg, server.Deps{Logger: logger, Capabilities: caps})
	if err != nil {
		return policyError(err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	files := &watch.Watcher{Logger: logger, Targets: func() []watch.Target {
		return []watch.Target{{Name: "bundles", Files: s.Files(), Reload: s.Reload}}
	}}
	files.Mark()
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	srv.RegisterOnShutdown(s.Drain)
	logger.InfoContext(ctx, "serving bundles", slog.String("address", l.Addr().String()), slog.Any("bundles", s.Status()))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return files.Run(ctx) })
	g.Go(func() error {
		if cert != "" {
			return closed(srv.ServeTLS(l, cert, key))
		}
		return closed(srv.Serve(l))
	})
	g.Go(func() error {
		<-ctx.Done()
		return shutdown(ctx, srv)
	})
	return g.Wait()
}

// closed takes the error of a server that was asked to stop for none.
func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP: %w", err)
}

// shutdown waits for open requests, though the context of the process has ended.
func shutdown(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}
