// Package kubernetes authenticates requests by service account tokens of a
// Kubernetes cluster: its API server is asked about each (TokenReview of
// authentication.k8s.io/v1), so that a token ends with its pod and its service
// account. If it is configured, the API server is also asked what the caller may do
// (SubjectAccessReview of authorization.k8s.io/v1), and the answer is a fact for the
// policy. The package owns these questions, how long answers count, and how many
// questions may be under way.
//
// It does not decide anything by what the API server allows, and it does not verify
// signatures: with the cluster's key set, proxy/authn/jwt does.
package kubernetes
