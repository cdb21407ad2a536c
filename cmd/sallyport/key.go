package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/proxy/authn/apikey"
)

func keyVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make API keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage(cmd, errors.New("say what to do with the key"))
		},
	}
	cmd.AddCommand(keyNew())
	return cmd
}

// newKey is an entry for the file of an api_key authenticator.
type newKey struct {
	ID        string    `yaml:"id"`
	SHA256    string    `yaml:"sha256"`
	Subject   string    `yaml:"subject"`
	Scopes    []string  `yaml:"scopes,omitempty,flow"`
	ExpiresAt time.Time `yaml:"expires_at,omitempty"`
}

func keyNew() *cobra.Command {
	var k newKey
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make an API key and the entry for the file of an api_key authenticator",
		Long: `Prints the entry on standard output, to be appended to the file, and the key on
standard error. The key is shown this once: the entry has its hash only.

  sallyport key new --id acme-1 --subject acme >> keys.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lasts < 0 {
				return usage(cmd, fmt.Errorf("--expires-in %s is negative", lasts))
			}
			if lasts > 0 {
				k.ExpiresAt = time.Now().UTC().Truncate(time.Second).Add(lasts)
			}
			var text string
			text, k.SHA256 = apikey.Generate()
			entry, err := yaml.Marshal([]newKey{k})
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(entry); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.ErrOrStderr(), text)
			return err
		},
	}
	cmd.Flags().StringVar(&k.ID, "id", "", "name of the key for logs and policies, never used again for another")
	cmd.Flags().StringVar(&k.Subject, "subject", "", "whose key it is: input.identity.subject")
	cmd.Flags().StringSliceVar(&k.Scopes, "scope", nil, "scope that the key has; may be repeated")
	cmd.Flags().DurationVar(&lasts, "expires-in", 0, "how long the key is good, such as 2160h; without it, for ever")
	required(cmd, "id")
	required(cmd, "subject")
	return cmd
}
