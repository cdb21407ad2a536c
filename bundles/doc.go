// Package bundles is where policies come from and how one becomes live.
//
// A Source reads policies, from files (`policy.paths`) or from bundle services
// through OPA's own plugins (`policy.opa`), compiles them with what the engine
// lets policies call, checks them against the input schema and hands the result
// to the engine. Whatever goes wrong on that way leaves the last good policy in
// force and says why in Status.
//
// The package also has what the command line does with policies: check them,
// test them, build, sign, verify and inspect bundles. It judges no request: that
// is the engine.
package bundles
