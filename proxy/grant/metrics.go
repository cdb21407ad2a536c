package grant

import (
	"errors"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/problem"
)

// outcomes are the series of one configured exchange or client.
type outcomes struct{ granted, refused, failed *meter.Count }

func exchanges(deps Deps) outcomes {
	return register(deps, "sallyport.token.exchanges", "{exchange}", "exchange",
		"Exchanges of a caller's token for one for an upstream that were asked of a provider, by exchange and outcome: granted, refused "+
			"(the provider does not grant the caller what was asked for) or error. Tokens that were kept are not counted.")
}

func fetches(deps Deps) outcomes {
	return register(deps, "sallyport.client.credentials.fetches", "{fetch}", "credentials",
		"Tokens of the gateway's own that were asked of a provider, by client credentials and outcome: granted, refused or error.")
}

func register(deps Deps, metric, unit, key, description string) outcomes {
	if deps.Metrics == nil {
		deps.Metrics = meter.New()
	}
	c := deps.Metrics.Counter(metric, unit, description)
	of := func(outcome string) *meter.Count {
		return c.With(meter.String(key, deps.Name), meter.String("outcome", outcome))
	}
	return outcomes{of("granted"), of("refused"), of("error")}
}

func (o *outcomes) of(err error) *meter.Count {
	switch {
	case err == nil:
		return o.granted
	case errors.Is(err, problem.ErrTokenRefused):
		return o.refused
	}
	return o.failed
}
