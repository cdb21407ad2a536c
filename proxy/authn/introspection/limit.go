package introspection

import (
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// QuestionLimit bounds the questions that one client can cause with tokens that are
// refused. A client is an IPv4 address or an IPv6 network of 64 bits, as the listener
// judges it: the peer, or what trusted_proxies report. While a client is limited, its
// tokens in the cache still pass, and others get 429.
type QuestionLimit struct {
	// Failures is how many refused tokens of a client are asked about in the long
	// run, such as 20/s; unlimited for no limit. Without trusted_proxies, all clients
	// of a load balancer are one.
	Failures setting.Rate `yaml:"failures"`
	// Burst is how many refused tokens of a client are asked about at once.
	Burst int `yaml:"burst"`
	// Clients is how many clients with refused tokens are remembered; of more, those
	// that were not seen for longest are forgotten.
	Clients int `yaml:"clients"`
}

// filled returns l with the default for each setting that was left out.
func (l QuestionLimit) filled() QuestionLimit {
	d := Default().QuestionLimit
	if l.Failures == 0 {
		l.Failures = d.Failures
	}
	if l.Burst == 0 {
		l.Burst = d.Burst
	}
	if l.Clients == 0 {
		l.Clients = d.Clients
	}
	return l
}

func (l QuestionLimit) problems() []error {
	var errs []error
	if l.Failures < 0 {
		errs = append(errs, setting.Problemf("question_limit.failures", "is negative"))
	}
	if l.Burst < 1 || l.Burst > 1<<20 {
		errs = append(errs, setting.Problemf("question_limit.burst", "%d is not between 1 and %d", l.Burst, 1<<20))
	}
	if l.Clients < 1 || l.Clients > 1<<24 {
		errs = append(errs, setting.Problemf("question_limit.clients", "%d is not between 1 and %d", l.Clients, 1<<24))
	}
	return errs
}

func (l QuestionLimit) limiter() (*limit.Limiter, error) {
	return limit.New(limit.Config{Failures: l.Failures, Burst: l.Burst, Clients: l.Clients})
}
