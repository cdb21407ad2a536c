package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/edgestack"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
)

func importVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Make a configuration of another gateway's",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage(cmd, errors.New("name what to import: edge-stack"))
		},
	}
	cmd.AddCommand(importEdgeStackVerb())
	return cmd
}

func importEdgeStackVerb() *cobra.Command {
	var dir string
	var strict bool
	var opts edgestack.Options
	cmd := &cobra.Command{
		Use:   "edge-stack FILE...",
		Short: "Make a configuration and a policy of Ambassador Edge Stack's resources",
		Long: `Reads Filter, FilterPolicy, Mapping, RateLimit and TLSContext resources, and Secrets with API keys, and
prints a configuration, followed by its policy as comments; with --dir both are written as files. Every difference
in meaning is a line on standard error with file, resource and key. What cannot be carried
over is denied rather than let through. A file named - is standard input.`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&dir, "dir", "", "write sallyport.yaml and policies into this folder")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit 1 if there are differences")
	cmd.Flags().StringToStringVar(&opts.Issuers, "issuer", nil, "issuer of the tokens of a Filter that names none, FILTER=URL")
	cmd.Flags().StringToStringVar(&opts.Audiences, "audience", nil, "audience of the tokens of a Filter that names none, FILTER=VALUE")
	cmd.Flags().StringVar(&opts.ID, "ambassador-id", "", `ambassador_id of the resources to read; by default the one that all have, else "default"`)
	cmd.Flags().BoolVar(&opts.AllowUnsigned, "insecure-allow-unsigned", false, `carry over that a Filter accepts the algorithm "none": anybody can be anybody`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := importFiles(cmd.InOrStdin(), args)
		if err != nil {
			return exit.With(exit.Config, err)
		}
		res, err := edgestack.Import(files, opts)
		if err != nil {
			return exit.With(exit.Config, err)
		}
		if err := writeImport(cmd, dir, res); err != nil {
			return err
		}
		for _, d := range res.Differences {
			fmt.Fprintln(cmd.ErrOrStderr(), d) //nolint:errcheck // standard error is gone
		}
		if n := len(res.Differences); strict && n > 0 {
			return fmt.Errorf("%d differences", n)
		}
		return nil
	}
	return cmd
}

func importFiles(stdin io.Reader, names []string) (out []edgestack.File, err error) {
	for _, name := range names {
		f := edgestack.File{Name: name}
		if name == "-" {
			f.Name = "standard input"
			f.Data, err = io.ReadAll(stdin)
		} else {
			f.Data, err = os.ReadFile(name) //nolint:gosec // the operator names the file
		}
		if err != nil {
			return nil, fmt.Errorf("read what to import: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}

func writeImport(cmd *cobra.Command, dir string, res *edgestack.Result) error {
	if dir == "" {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s%s%s", res.Config, asComments(res), neededLines("# ", res.Files))
		return err
	}
	files := map[string][]byte{"sallyport.yaml": res.Config, edgestack.PolicyFile: res.Policy}
	for _, w := range res.Written {
		files[w.Path] = w.Data
	}
	for name, data := range files {
		if err := writeNew(filepath.Join(dir, filepath.FromSlash(name)), data); err != nil {
			return err
		}
	}
	at := filepath.Clean(dir)
	var keys strings.Builder
	for _, w := range res.Written {
		fmt.Fprintf(&keys, "Wrote %s/%s.\n", at, w.Path)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "Wrote %[1]s/sallyport.yaml and %[1]s/%[2]s.\n%[3]s%[4]s", at, edgestack.PolicyFile, keys.String(), neededLines("", res.Files))
	return err
}

// asComments is every file but the configuration, to stand behind it.
func asComments(res *edgestack.Result) string {
	var b strings.Builder
	for _, w := range append([]edgestack.Written{{Path: edgestack.PolicyFile, Data: res.Policy}}, res.Written...) {
		fmt.Fprintf(&b, "\n# %s, to be written to a file of its own:\n#\n%s", w.Path, commented(w.Data))
	}
	return b.String()
}

// writeNew does not write over somebody's work.
func writeNew(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the folder
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w; choose an empty folder", err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func commented(text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		b.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
	return b.String()
}

func neededLines(prefix string, files []edgestack.Needed) string {
	if len(files) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%sFiles to put beside the configuration:\n", strings.TrimRight(prefix, " "), prefix)
	for _, f := range files {
		fmt.Fprintf(&b, "%s  %s: %s\n", prefix, f.Path, f.Content)
	}
	return b.String()
}
