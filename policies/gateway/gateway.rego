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

decision := {
	"allow": true,
	"reason": concat("", ["granted by ", granting]),
	"labels": {"grant": granting},
	"upstream": {"set_headers": {"x-user": identity.subject}},
} if {
	granting
}

else := {
	"allow": true,
	"reason": concat("", ["granted by ", granting]),
	"labels": {"grant": granting},
} if {
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
granting := data.access.grants[first].name if {
	first := min(_admitting)
}

else := sprintf("grant %d", [min(_admitting)])

# What follows is evaluated for each request: conditions that rule most grants out
# come first, built-in functions are preferred to functions, arrays to sets.

_admitting := [i |
	some i in _applicable
	grant := data.access.grants[i]
	object.get(grant, "anyone", false) in _anyone
	some role in object.get(grant, "roles", [_any])
	role in _roles
	_holds_rest(grant)
]

# Grants for this path, route and method, whoever calls.
_applicable := [i |
	some i in _covering
	some method in object.get(data.access.grants[i], "methods", ["*"])
	method in _methods
]

# Grants for this path and route, whatever the method and whoever calls. One with
# a field that is not known holds for nobody: a misspelt condition would be one
# that is not asked for.
_covering := [i |
	some i in _on_path
	count(object.keys(data.access.grants[i]) - _fields) == 0
	some route in object.get(data.access.grants[i], "routes", [_any])
	route in _routes
]

# Grants for this path: of literal patterns, which are looked up, of patterns with
# segments that stand for others, which are matched, and of those for a route.
_on_path := array.flatten([_on_literal_path, _on_wild_path, _on_any_path])

_on_literal_path := [i |
	some i, grant in data.access.grants
	some pattern in grant.paths
	pattern in _patterns
]

_on_wild_path := [i |
	some i, grant in data.access.grants
	some pattern in grant.paths
	http.is_wild(pattern)
	http.path_matches(pattern)
]

_on_any_path := [i |
	some i, grant in data.access.grants
	is_array(grant.routes)
	not "paths" in object.keys(grant)
]

# The literal patterns that match the path.
_patterns := array.concat(
	[concat("/", array.concat([""], input.request.segments))],
	[concat("/", array.flatten(["", array.slice(input.request.segments, 0, n), "**"])) |
		some n in numbers.range(0, count(input.request.segments))
	],
)

_fields := {"name", "paths", "methods", "roles", "anyone", "routes", "authenticators", "subjects", "scopes"}

_holds_rest(grant) if count(object.keys(grant) & {"authenticators", "subjects", "scopes"}) == 0

_holds_rest(grant) if {
	some authenticator in object.get(grant, "authenticators", [_any])
	authenticator in _authenticators
	some subject in object.get(grant, "subjects", [_any])
	subject in _subjects
	_holds_scopes(grant)
}

_holds_scopes(grant) if not "scopes" in object.keys(grant)

_holds_scopes(grant) if identity.has_every_scope(grant.scopes)

# Stands for a condition that a grant does not have. No claim and no name in a
# configuration is this text.
_any := "\u0000any"

_methods := ["*", input.request.method]

# A grant without "anyone" has false.
_anyone := [true, identity.authenticated == false]

_roles := array.concat([_any], [role |
	identity.authenticated
	is_array(input.identity.claims.roles)
	some role in input.identity.claims.roles
	role != _any
])

_routes := array.concat([_any], [name | name := input.route.name])

_authenticators := array.concat([_any], [name | name := input.identity.authenticator])

_subjects := array.concat([_any], [name | name := identity.subject])
