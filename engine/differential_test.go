package engine_test

var decisionPolicies = map[string]string{
	"orders":    ordersPolicy,
	"explained": explained,
	"conflict":  "package gateway\n\ndecision := true if input.request.method\n\ndecision := false if input.request.path",
}
