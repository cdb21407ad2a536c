package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/version"
	"github.com/sallyport/sallyport/policies"
)

// verbs are all that the binary does. A verb stands here when it works.
func verbs() []*cobra.Command {
	return []*cobra.Command{
		serveVerb(), demoVerb(), checkVerb(), testVerb(), explainVerb(), bundleVerb(), importVerb(), keyVerb(),
		schemaVerb(), healthcheckVerb(), versionVerb(),
	}
}

// configFlag is the -c of the verbs that read a configuration.
func configFlag(cmd *cobra.Command) *string {
	file := cmd.Flags().StringP("config", "c", "", "configuration file")
	required(cmd, "config")
	return file
}

func versionVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the version of OPA inside",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printJSON(cmd.OutOrStdout(), version.Get())
		},
	}
}

func schemaVerb() *cobra.Command {
	schemas := map[string]func() []byte{
		"config":   config.Schema,
		"input":    policies.InputSchema,
		"decision": policies.DecisionSchema,
	}
	return &cobra.Command{
		Use:       "schema config|input|decision",
		Short:     "Print the JSON Schema of the configuration, the input or the decision document",
		ValidArgs: []string{"config", "input", "decision"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := cmd.OutOrStdout().Write(schemas[args[0]]())
			return err
		},
	}
}

func healthcheckVerb() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit 0 if the gateway is ready; for containers without a shell",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return probe(cmd.Context(), url)
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://127.0.0.1:9901/readyz", "page that answers 200 when all is well")
	return cmd
}

func probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}
