# METADATA
# title: Identity
# description: |
#   Questions about the caller. None of them holds for a caller that is not
#   authenticated, whatever else the identity says.
# schemas:
#   - input: schema.input
package sallyport.identity

# METADATA
# title: Authenticated
# description: True when an authenticator other than "anonymous" vouches for the caller.
default authenticated := false

authenticated if input.identity.authenticated == true

# METADATA
# title: Subject
# description: The caller's subject. Undefined for a caller that has none.
subject := input.identity.subject if {
	authenticated
	input.identity.subject != ""
}

# METADATA
# title: Role
# description: Holds when the claim "roles" is a list that has the role.
has_role(role) if {
	authenticated
	is_array(input.identity.claims.roles)
	role in input.identity.claims.roles
}

# METADATA
# title: One of several roles
# description: Holds when the caller has at least one role of the list.
has_any_role(roles) if {
	is_array(roles)
	some role in roles
	has_role(role)
}

# METADATA
# title: Scope
# description: Holds when the token was issued with the scope.
has_scope(scope) if {
	authenticated
	scope in input.identity.scopes
}

# METADATA
# title: All of several scopes
# description: Holds when the token was issued with every scope of the list; an empty list holds for nobody.
has_every_scope(scopes) if {
	is_array(scopes)
	count(scopes) > 0
	every scope in scopes {
		has_scope(scope)
	}
}
