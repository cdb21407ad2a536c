package gateway_test

import data.gateway

request(method, segments) := {
	"request": {"method": method, "segments": segments},
	"route": {"name": "orders"},
}

from(caller, request) := object.union(request, {"identity": caller})

caller(roles) := {
	"authenticated": true,
	"authenticator": "corp",
	"subject": "alice",
	"scopes": ["orders.read"],
	"claims": {"roles": roles},
}

anonymous := {"authenticated": false, "authenticator": "anyone"}

orders := ["v1", "orders", "42"]

# The data document that the gateway comes with.

test_public_is_open if {
	decision := gateway.decision with input as from(anonymous, request("GET", ["public", "a"]))
	decision == {"allow": true, "reason": "granted by public", "labels": {"grant": "public"}}
}

test_public_names_an_authenticated_caller if {
	decision := gateway.decision with input as from(caller([]), request("GET", ["public", "a"]))
	decision.allow
	decision.upstream.set_headers == {"x-user": "alice"}
}

test_reader_reads if {
	decision := gateway.decision with input as from(caller(["reader"]), request("GET", orders))
	decision == {
		"allow": true,
		"reason": "granted by orders-read",
		"labels": {"grant": "orders-read"},
		"upstream": {"set_headers": {"x-user": "alice"}},
	}
}

test_reader_does_not_write if {
	decision := gateway.decision with input as from(caller(["reader"]), request("POST", orders))
	decision.allow == false
	decision.reason == "the caller has none of the roles and scopes that the grants for this path ask for"
}

test_writer_writes if {
	some method in ["GET", "POST", "PUT", "DELETE"]
	decision := gateway.decision with input as from(caller(["writer"]), request(method, orders))
	decision.allow
	decision.labels.grant == "orders-write"
}

test_unauthenticated_is_asked_for_credentials if {
	decision := gateway.decision with input as from(anonymous, request("GET", orders))
	decision.allow == false
	decision.status == 401
}

test_the_rest_is_denied if {
	decision := gateway.decision with input as from(caller(["writer"]), request("GET", ["v2", "orders"]))
	decision == {"allow": false, "reason": "no grant covers this path"}
}

test_empty_input_is_denied if {
	decision := gateway.decision with input as {}
	decision == {"allow": false, "reason": "no grant covers this path"}
}

test_no_data_is_denied if {
	decision := gateway.decision with input as from(caller(["writer"]), request("GET", orders)) with data.access as {}
	decision.allow == false
}

# Each field of a grant.

grant_cases := {
	"route": {"grant": {"routes": ["orders"]}, "want": true},
	"other route": {"grant": {"routes": ["billing"]}, "want": false},
	"route and path": {"grant": {"routes": ["orders"], "paths": ["/v1/**"]}, "want": true},
	"route but other path": {"grant": {"routes": ["orders"], "paths": ["/v2/**"]}, "want": false},
	"second path": {"grant": {"paths": ["/v2/**", "/v1/**"]}, "want": true},
	"no path": {"grant": {"paths": []}, "want": false},
	"path as text": {"grant": {"paths": "/v1/**"}, "want": false},
	"neither route nor path": {"grant": {"roles": ["reader"]}, "want": false},
	"empty": {"grant": {}, "want": false},
	"method": {"grant": {"paths": ["/**"], "methods": ["GET"]}, "want": true},
	"other method": {"grant": {"paths": ["/**"], "methods": ["POST"]}, "want": false},
	"method as text": {"grant": {"paths": ["/**"], "methods": "GET"}, "want": false},
	"authenticator": {"grant": {"paths": ["/**"], "authenticators": ["corp"]}, "want": true},
	"other authenticator": {"grant": {"paths": ["/**"], "authenticators": ["mesh"]}, "want": false},
	"subject": {"grant": {"paths": ["/**"], "subjects": ["bob", "alice"]}, "want": true},
	"other subject": {"grant": {"paths": ["/**"], "subjects": ["bob"]}, "want": false},
	"one of the roles": {"grant": {"paths": ["/**"], "roles": ["reader", "writer"]}, "want": true},
	"none of the roles": {"grant": {"paths": ["/**"], "roles": ["writer"]}, "want": false},
	"no role": {"grant": {"paths": ["/**"], "roles": []}, "want": false},
	"scope": {"grant": {"paths": ["/**"], "scopes": ["orders.read"]}, "want": true},
	"one of two scopes": {"grant": {"paths": ["/**"], "scopes": ["orders.read", "orders.write"]}, "want": false},
	"role without scope": {"grant": {"paths": ["/**"], "roles": ["reader"], "scopes": ["x"]}, "want": false},
	"any authenticated caller": {"grant": {"paths": ["/**"]}, "want": true},
	"misspelt field": {"grant": {"paths": ["/**"], "role": ["writer"]}, "want": false},
	"not an object": {"grant": "everything", "want": false},
}

test_grant[name] if {
	some name, tc in grant_cases
	got := gateway.decision with input as from(caller(["reader"]), request("GET", orders))
		with data.access.grants as [tc.grant]
	got.allow == tc.want
}

test_anyone_is_a_boolean if {
	decision := gateway.decision with input as from(anonymous, request("GET", orders))
		with data.access.grants as [{"paths": ["/**"], "anyone": "yes"}]
	decision.allow == false
}

test_anyone_does_not_replace_a_role if {
	decision := gateway.decision with input as from(anonymous, request("GET", orders))
		with data.access.grants as [{"paths": ["/**"], "anyone": true, "roles": ["reader"]}]
	decision.allow == false
}

test_method_reason if {
	decision := gateway.decision with input as from(caller(["reader"]), request("POST", orders))
		with data.access.grants as [{"paths": ["/**"], "methods": ["GET"]}]
	decision.reason == "no grant for this path has this method"
}

test_a_grant_without_a_name_goes_by_its_place if {
	decision := gateway.decision with input as from(caller(["reader"]), request("GET", orders))
		with data.access.grants as [{"paths": ["/none"]}, {"paths": ["/**"]}]
	decision.reason == "granted by grant 1"
}
