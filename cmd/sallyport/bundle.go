package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
	"github.com/sallyport/sallyport/engine"
)

func bundleVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Build, sign, verify, inspect and serve OPA bundles",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage(cmd, errors.New("say what to do with the bundle"))
		},
	}
	cmd.AddCommand(bundleBuild(), bundleSign(), bundleVerify(), bundleInspect(), bundleServe())
	return cmd
}

// capabilities are what policies may call by default: what is built here must be
// what a gateway accepts.
func capabilities() (*ast.Capabilities, error) {
	e, err := engine.New(engine.Default(), engine.Deps{})
	if err != nil {
		return nil, err
	}
	return e.Capabilities(), nil
}

// signingFlags adds the flags of a signature. The result is nil when no key was
// named, and complains about half a key.
func signingFlags(cmd *cobra.Command) func() (*bundles.Signing, error) {
	var s bundles.Signing
	cmd.Flags().StringVar(&s.KeyFile, "signing-key", "", "PEM file of the private key, or file of the secret of an HS algorithm")
	cmd.Flags().StringVar(&s.KeyID, "key-id", "", "name that gateways know the key by (policy.opa.keys)")
	cmd.Flags().StringVar(&s.Algorithm, "algorithm", "RS256", "signature algorithm")
	cmd.Flags().StringVar(&s.ClaimsFile, "claims-file", "", "JSON file of further claims, such as scope")
	return func() (*bundles.Signing, error) {
		if s.KeyFile == "" && s.KeyID == "" && s.ClaimsFile == "" {
			return nil, nil //nolint:nilnil // no signature was asked for
		}
		if err := s.Validate(); err != nil {
			return nil, usage(cmd, err)
		}
		return &s, nil
	}
}

func bundleBuild() *cobra.Command {
	var b bundles.Building
	var out string
	cmd := &cobra.Command{
		Use:   "build PATH...",
		Short: "Pack policies and data into a bundle, signed if a key is named",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "bundle.tar.gz", "file to write")
	cmd.Flags().StringVar(&b.Revision, "revision", "", "revision in the manifest (default: a hash of the content)")
	cmd.Flags().StringArrayVar(&b.Roots, "root", nil, "path of data that the bundle owns; repeatable (default: from .manifest, else everything)")
	cmd.Flags().StringArrayVar(&b.Entrypoints, "entrypoint", nil, "rule that optimization keeps; repeatable")
	cmd.Flags().IntVar(&b.Optimize, "optimize", 0, "level of partial evaluation, 0 to 2")
	signing := signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if b.Signing, err = signing(); err != nil {
			return err
		}
		if b.Capabilities, err = capabilities(); err != nil {
			return err
		}
		b.Paths = args
		built, err := bundles.Build(cmd.Context(), b)
		if err != nil {
			return policyError(err)
		}
		if err := writeFile(out, func(w io.Writer) error { _, err := built.WriteTo(w); return err }); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: revision %s, %d bytes\n", out, built.Revision, len(built.Archive)) //nolint:errcheck // standard output is gone
		return nil
	}
	return cmd
}

func bundleSign() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "sign BUNDLE",
		Short: "Sign a bundle; a signature that it has is replaced",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: in place)")
	signing := signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := signing()
		if err != nil {
			return err
		}
		if s == nil {
			return usage(cmd, errors.New("name the key: --signing-key and --key-id"))
		}
		if out == "" {
			out = args[0]
		}
		return writeFile(out, func(w io.Writer) error { return bundles.Sign(args[0], *s, w) })
	}
	return cmd
}

func bundleVerify() *cobra.Command {
	var v bundles.Verification
	cmd := &cobra.Command{
		Use:   "verify BUNDLE",
		Short: "Check that a bundle is signed with a key and holds exactly what was signed",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := bundles.Verify(args[0], v)
			if err != nil {
				return policyError(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: signed with key %s, revision %s\n", args[0], v.KeyID, i.Revision) //nolint:errcheck // standard output is gone
			return nil
		},
	}
	cmd.Flags().StringVar(&v.KeyFile, "verification-key", "", "PEM file of the public key or certificate, or file of the secret of an HS algorithm")
	cmd.Flags().StringVar(&v.KeyID, "key-id", "", "key that must have signed")
	cmd.Flags().StringVar(&v.Algorithm, "algorithm", "RS256", "signature algorithm")
	cmd.Flags().StringVar(&v.Scope, "scope", "", "scope that the signature must have been made for")
	required(cmd, "verification-key", "key-id")
	return cmd
}

func bundleInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect BUNDLE",
		Short: "Show what a bundle says about itself, as JSON; nothing is verified",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := bundles.Inspect(args[0])
			if err != nil {
				return policyError(err)
			}
			return printJSON(cmd.OutOrStdout(), i)
		},
	}
}

// policyError gives an error about a policy or bundle its exit status and one line
// per problem; a file that cannot be read is an ordinary failure.
func policyError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	var all []error
	for _, p := range bundles.Problems(err) {
		all = append(all, p)
	}
	return exit.With(exit.Policy, errors.Join(all...))
}

// writeFile writes a file beside its place and moves it there, so that nobody
// reads half of it and a failure leaves what was there.
func writeFile(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = errors.Join(fill(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error below says what happened
		return policyError(fmt.Errorf("write %s: %w", path, err))
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// required marks flags that a verb cannot do without.
func required(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag does not exist: a mistake of this source
		}
	}
}
