package decisionlog

import (
	"errors"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config says how much of the decision log is kept where, and what is masked
// beyond what always is.
type Config struct {
	// Queue is how many records may wait to be written. When it is full, records
	// are dropped and counted: a slow disk never delays a request.
	Queue int `yaml:"queue"`
	// Recent is how many of the newest records the admin listener can show.
	Recent int `yaml:"recent"`
	// MaxInput bounds the input document in a record. A larger one is left out.
	MaxInput setting.Size `yaml:"max_input"`
	// Mask names further values that are secrets.
	Mask MaskConfig `yaml:"mask"`
}

// MaskConfig names values that are written as keyed hashes. Credentials are masked
// whatever it says.
type MaskConfig struct {
	// Headers are header names, in any case.
	Headers []string `yaml:"headers"`
	// Query are names of query parameters, in any case.
	Query []string `yaml:"query"`
	// Claims are names of claims, at any depth.
	Claims []string `yaml:"claims"`
}

// Default returns the configuration of a gateway that says nothing about it.
func Default() Config {
	return Config{Queue: 4096, Recent: 200, MaxInput: 64 << 10}
}

// Validate reports all problems of the configuration.
func (c *Config) Validate() error {
	var problems []error
	if c.Queue < 1 || c.Queue > 1<<20 {
		problems = append(problems, setting.Problemf("queue", "must be from 1 to %d", 1<<20))
	}
	if c.Recent < 0 || c.Recent > 100_000 {
		problems = append(problems, setting.Problemf("recent", "must be from 0 to 100000"))
	}
	if c.MaxInput < 0 {
		problems = append(problems, setting.Problemf("max_input", "must not be negative"))
	}
	for key, names := range map[string][]string{"headers": c.Mask.Headers, "query": c.Mask.Query, "claims": c.Mask.Claims} {
		for _, name := range names {
			if name == "" {
				problems = append(problems, setting.Problemf("mask."+key, "has an empty name"))
			}
		}
	}
	return errors.Join(problems...)
}
