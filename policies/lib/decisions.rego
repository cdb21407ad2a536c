# METADATA
# title: Decisions
# description: |
#   Constructors for decision documents. Each returns a whole document, so that
#   they nest: decisions.labelled(decisions.allow("..."), {"rule": "..."}).
# schemas:
#   - input: schema.input
package sallyport.decisions

# METADATA
# title: Allow
# description: Allows the request. The reason goes to the decision log.
allow(reason) := {"allow": true, "reason": reason}

# METADATA
# title: Deny
# description: Denies the request with 403. The reason goes to the decision log, not to the client.
deny(reason) := {"allow": false, "reason": reason}

# METADATA
# title: Deny with a status
# description: Denies the request with the given HTTP status.
deny_with(status, reason) := {"allow": false, "reason": reason, "status": status}

# METADATA
# title: Ask for credentials
# description: Denies a caller that is not authenticated with 401 and the challenge of RFC 6750 section 3.
unauthenticated(reason) := {
	"allow": false,
	"reason": reason,
	"status": 401,
	"headers": {"www-authenticate": "Bearer"},
}

# METADATA
# title: Labels
# description: Adds labels for the decision log and the metrics.
labelled(decision, labels) := object.union(decision, {"labels": labels})

# METADATA
# title: Request headers
# description: Sets headers of the forwarded request, in place of those of the client.
forwarding(decision, headers) := object.union(decision, {"upstream": {"set_headers": headers}})

# METADATA
# title: Response headers
# description: Sets headers of the response that the upstream gives.
answering(decision, headers) := object.union(decision, {"response": {"set_headers": headers}})
