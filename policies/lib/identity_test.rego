package sallyport.identity_test

import data.sallyport.identity

alice := {
	"authenticated": true,
	"subject": "alice",
	"scopes": ["orders.read", "orders.write"],
	"claims": {"roles": ["reader", "auditor"]},
}

nobody := object.union(alice, {"authenticated": false})

test_authenticated if {
	identity.authenticated with input.identity as alice
	not identity.authenticated with input.identity as nobody
	not identity.authenticated with input as {}
}

test_subject if {
	identity.subject == "alice" with input.identity as alice
	not identity.subject with input.identity as nobody
	not identity.subject with input.identity as object.union(alice, {"subject": ""})
}

test_has_role if {
	identity.has_role("reader") with input.identity as alice
	not identity.has_role("writer") with input.identity as alice
	not identity.has_role("reader") with input.identity as nobody
	not identity.has_role("reader") with input.identity as object.union(alice, {"claims": {"roles": "reader"}})
	not identity.has_role("reader") with input.identity as {"authenticated": true}
}

test_has_any_role if {
	identity.has_any_role(["writer", "auditor"]) with input.identity as alice
	not identity.has_any_role(["writer"]) with input.identity as alice
	not identity.has_any_role([]) with input.identity as alice
	not identity.has_any_role("reader") with input.identity as alice
}

test_has_scope if {
	identity.has_scope("orders.read") with input.identity as alice
	not identity.has_scope("orders.delete") with input.identity as alice
	not identity.has_scope("orders.read") with input.identity as nobody
}

test_has_every_scope if {
	identity.has_every_scope(["orders.read", "orders.write"]) with input.identity as alice
	not identity.has_every_scope(["orders.read", "orders.delete"]) with input.identity as alice
	not identity.has_every_scope([]) with input.identity as alice
	not identity.has_every_scope("orders.read") with input.identity as alice
}
