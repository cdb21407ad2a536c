# METADATA
# title: Access by role, scope, route, method and path
# description: |
#   The default policy. It reads its rules from data.access, so that an operator
#   edits access/data.json and no Rego. data.access.grants is a list; a request
#   is allowed when one grant holds in full, and denied otherwise.
#
#   Every field that a grant has must hold:
#
#   - name: for the decision log (text)
#   - routes: the matched route is one of these (names from the configuration)
#   - paths: the path matches one of these patterns
#   - methods: the method is one of these; "*" is any; absent is any
#   - authenticators: one of these established the identity
#   - subjects: the caller is one of these
#   - roles: the caller has at least one of these (claim "roles")
#   - scopes: the token has all of these
#   - anyone: true lets callers in that are not authenticated
#
#   A grant names routes or paths. One with a field that is not in this list, a
#   misspelt condition for example, holds for nobody.
# schemas:
#   - input: schema.input
package gateway

import data.sallyport.decisions
import data.sallyport.http
import data.sallyport.identity

# METADATA
# title: Decision
# description: The answer to one request. The first that applies of the rules below, else a denial.
# entrypoint: true
default decision := {"allow": false, "reason": "no grant covers this path"}

decision := decisions.labelled(
	_with_user(decisions.allow(sprintf("granted by %s", [granting]))),
	{"grant": granting},
) if {
	granting
}

else := decisions.unauthenticated("the grants for this path ask for an authenticated caller") if {
	not identity.authenticated
	count(_applicable) > 0
}

else := decisions.deny("the caller has none of the roles and scopes that the grants for this path ask for") if {
	count(_applicable) > 0
}

else := decisions.deny("no grant for this path has this method") if count(_covering) > 0

# METADATA
# title: Granting
# description: The name of the first grant that lets the request through. Undefined when none does.
granting := [name |
	some i in _applicable
	grant := data.access.grants[i]
	_admits(grant)
	name := object.get(grant, "name", sprintf("grant %d", [i]))
][0]

# The upstream learns who calls. The gateway has removed what the client sent.
_with_user(decision) := decisions.forwarding(decision, {"x-user": identity.subject})

_with_user(decision) := decision if not identity.subject

_fields := {"name", "routes", "paths", "methods", "authenticators", "subjects", "roles", "scopes", "anyone"}

# Grants for this path and route, whatever the method and whoever calls.
_covering := [i |
	some i, grant in data.access.grants
	count(object.keys(grant) - _fields) == 0
	_has_place(grant)
	_holds_route(grant)
	_holds_path(grant)
]

_applicable := [i |
	some i in _covering
	_holds_method(data.access.grants[i])
]

_has_place(grant) if grant.paths

_has_place(grant) if grant.routes

_holds_route(grant) if not "routes" in object.keys(grant)

_holds_route(grant) if input.route.name in grant.routes

_holds_path(grant) if not "paths" in object.keys(grant)

_holds_path(grant) if {
	some pattern in grant.paths
	http.path_matches(pattern)
}

_holds_method(grant) if not "methods" in object.keys(grant)

_holds_method(grant) if http.method_in(grant.methods)

_admits(grant) if {
	_holds_anyone(grant)
	_holds_authenticator(grant)
	_holds_subject(grant)
	_holds_role(grant)
	_holds_scope(grant)
}

_holds_anyone(_) if identity.authenticated

_holds_anyone(grant) if grant.anyone == true

_holds_authenticator(grant) if not "authenticators" in object.keys(grant)

_holds_authenticator(grant) if input.identity.authenticator in grant.authenticators

_holds_subject(grant) if not "subjects" in object.keys(grant)

_holds_subject(grant) if identity.subject in grant.subjects

_holds_role(grant) if not "roles" in object.keys(grant)

_holds_role(grant) if identity.has_any_role(grant.roles)

_holds_scope(grant) if not "scopes" in object.keys(grant)

_holds_scope(grant) if identity.has_every_scope(grant.scopes)
