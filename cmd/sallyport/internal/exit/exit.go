// Package exit gives errors the process's exit status, so that every verb says
// why it ended and scripts can tell a bad policy from a bad configuration.
//
// It decides nothing else; main prints the error and exits.
package exit

import "errors"

// The exit statuses that scripts rely on.
const (
	OK     = 0
	Failed = 1 // failed while running
	Usage  = 2 // wrong arguments
	Config = 3 // the configuration is wrong
	Policy = 4 // a policy does not compile, its tests fail, a decision flips
)

type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

// With gives err an exit status. A nil error stays nil.
func With(code int, err error) error {
	if err == nil {
		return nil
	}
	return coded{error: err, code: code}
}

// Code returns the status of err: the outermost that With gave it, Failed without one, OK for nil.
func Code(err error) int {
	var c coded
	switch {
	case err == nil:
		return OK
	case errors.As(err, &c):
		return c.code
	default:
		return Failed
	}
}
