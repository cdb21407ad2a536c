package bundles

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/config"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/discovery"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/plugins/status"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/sallyport/sallyport/engine/setting"
)

// opaKeys are the parts of OPA's configuration that mean something here.
var opaKeys = []string{
	"services", "labels", "discovery", "bundles", "decision_logs", "status",
	"keys", "caching", "nd_builtin_cache", "persistence_directory",
}

// otherOPAKeys belong to OPA's server and runtime, which are not in this program.
var otherOPAKeys = map[string]string{
	"server":                         "the gateway's listeners and admin configure what is served",
	"storage":                        "policies and data are kept in memory",
	"distributed_tracing":            "the gateway's telemetry traces",
	"metrics_export":                 "the gateway's telemetry exports metrics",
	"default_decision":               "policy.entrypoint names the decision",
	"default_authorization_decision": "there is no OPA API to authorize",
	"bundle":                         "OPA has deprecated it; use bundles",
	"plugins":                        "this build has no plugins of its own",
}

// defaultMaxBundle is size_limit_bytes where the configuration does not say.
const defaultMaxBundle = DefaultSizeLimit

// validateOPA reports every problem of policy.opa, OPA's own checks included.
func validateOPA(opa map[string]any) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(opa)) {
		if why, ok := otherOPAKeys[key]; ok {
			errs = append(errs, setting.Problemf(key, "not supported: %s", why))
		} else if !slices.Contains(opaKeys, key) {
			errs = append(errs, setting.Problemf(key, "not a key of OPA's configuration"))
		}
	}
	keyed := len(object(opa["keys"])) > 0
	errs = append(errs, setting.Under("bundles", checkBundles(object(opa["bundles"]), keyed)))
	errs = append(errs, setting.Under("keys", checkKeys(object(opa["keys"]))))
	if d := object(opa["discovery"]); len(d) > 0 {
		errs = append(errs, setting.Under("discovery", checkSigning(d, keyed)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return probe(opa)
}

// checkBundles checks what OPA lets pass: with keys configured, a bundle without
// a signature, or signed with another of the keys.
func checkBundles(list map[string]any, keyed bool) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if slices.Contains(strings.Split(name, "/"), "..") {
			errs = append(errs, setting.Problemf(name, "a bundle's name is also the name of its folder in persistence_directory"))
		}
		errs = append(errs, setting.Under(name, checkSigning(object(list[name]), keyed)))
	}
	return errors.Join(errs...)
}

func checkSigning(source map[string]any, keyed bool) error {
	signing := object(source["signing"])
	if id, _ := signing["keyid"].(string); keyed && id == "" {
		return setting.Problemf("signing.keyid", "keys are configured: name the one that signs, or unsigned bundles would be accepted")
	}
	if allowed, _ := signing["allow_unsigned_delta_bundles"].(bool); allowed {
		return setting.Problemf("signing.allow_unsigned_delta_bundles", "not supported: a delta would replace what was signed")
	}
	return nil
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// rawOPA is the configuration as the plugin manager reads it, with our defaults.
func rawOPA(opa map[string]any) ([]byte, error) {
	out := maps.Clone(opa)
	if list := object(opa["bundles"]); list != nil {
		out["bundles"] = withSizeLimits(list)
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode OPA's configuration: %w", err)
	}
	return raw, nil
}

func withSizeLimits(list map[string]any) map[string]any {
	out := make(map[string]any, len(list))
	for name, v := range list {
		source := maps.Clone(object(v))
		if source == nil {
			source = map[string]any{}
		}
		if source["size_limit_bytes"] == nil {
			source["size_limit_bytes"] = defaultMaxBundle
		}
		out[name] = source
	}
	return out
}

// probe lets OPA check the configuration, without starting or contacting anything.
func probe(opa map[string]any) error {
	raw, err := rawOPA(opa)
	if err != nil {
		return err
	}
	m, err := plugins.New(raw, "probe", inmem.New(), plugins.Logger(logging.NewNoOpLogger()), plugins.WithStoreCloseOnStop(false))
	if err != nil {
		return err
	}
	defer m.Stop(context.Background())
	var errs []error
	for _, w := range m.Config.Warnings {
		errs = append(errs, errors.New(w))
	}
	return errors.Join(append(errs, probeSections(m)...)...)
}

func probeSections(m *plugins.Manager) []error {
	c := m.GetConfig()
	_, bundleErr := bundle.NewConfigBuilder().WithBytes(c.Bundles).WithServices(m.Services()).WithKeyConfigs(m.PublicKeys()).Parse()
	_, discoveryErr := discovery.NewConfigBuilder().WithBytes(c.Discovery).WithServices(m.Services()).WithKeyConfigs(m.PublicKeys()).Parse()
	_, logsErr := logs.NewConfigBuilder().WithBytes(c.DecisionLogs).WithServices(m.Services()).WithLogger(m.Logger()).Parse()
	_, statusErr := status.NewConfigBuilder().WithBytes(c.Status).WithServices(m.Services()).Parse()
	return []error{
		setting.Under("bundles", bundleErr), setting.Under("discovery", discoveryErr),
		setting.Under("decision_logs", logsErr), setting.Under("status", statusErr),
	}
}

// discovered applies the rules for bundles to those that a discovery document
// names. It is a hook of OPA's discovery plugin.
type discovered struct {
	keyed bool   // keys are in the boot configuration
	guard *guard // learns the limits of the new bundles
}

func (d *discovered) OnConfigDiscovery(_ context.Context, c *config.Config) (*config.Config, error) {
	var list map[string]any
	if len(c.Bundles) > 0 {
		if err := json.Unmarshal(c.Bundles, &list); err != nil {
			return nil, fmt.Errorf("bundles of the discovered configuration: %w", err)
		}
	}
	if err := checkBundles(list, d.keyed || len(c.Keys) > 0 && string(c.Keys) != "null"); err != nil {
		return nil, setting.Under("bundles", err)
	}
	list = withSizeLimits(list)
	raw, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("bundles of the discovered configuration: %w", err)
	}
	if len(c.Bundles) > 0 {
		c.Bundles = raw
	}
	d.guard.learn(list)
	return c, nil
}
