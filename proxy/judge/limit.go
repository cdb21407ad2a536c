package judge

import (
	"strconv"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/ratelimit"
)

// requests is what the limit of the policy is called in RateLimit fields. The key is
// not: it may be somebody's name, or say what others are limited by.
const requests = "requests"

// limit takes the token that the decision asks for, for each request that comes so far
// anew, also when requests share the decision. Only what is forwarded otherwise takes
// one, before tokens for the upstream are asked for.
func (j *Judge) limit(c *judged) error {
	if c.Forward == nil || c.Decision.RateLimit == nil {
		return nil
	}
	b, fault := bucketOf(c.Decision.RateLimit)
	if fault != nil {
		c.Forward = nil
		j.fault(&c.Verdict, fault)
		return nil
	}
	left, err := j.cfg.Limiter.Take(c.Decision.RateLimit.Key, b, j.cfg.Now())
	if err != nil {
		c.Forward = nil
		return err
	}
	c.who.Response = append(c.who.Response, limitFields(requests, left)...)
	return nil
}

func bucketOf(r *authz.RateLimit) (authz.Bucket, *authz.Fault) {
	b, err := r.Bucket()
	if err != nil {
		return b, &authz.Fault{Kind: authz.FaultType, Detail: err.Error()}
	}
	return b, nil
}

// limitFields tell a client what a limit is and what it has left
// (draft-ietf-httpapi-ratelimit-headers): q at once, earned anew in w seconds; r more
// now, and one more than that in t seconds.
func limitFields(name string, l ratelimit.Left) []authz.Header {
	name = `"` + name + `"`
	return []authz.Header{
		{Name: "ratelimit-policy", Value: name + ";q=" + strconv.Itoa(l.Quota) + ";w=" + strconv.FormatInt(l.Window, 10)},
		{Name: "ratelimit", Value: name + ";r=" + strconv.Itoa(l.Remaining) + ";t=" + strconv.Itoa(problem.WholeSeconds(l.Next))},
	}
}
