package sallyport.decisions_test

import data.sallyport.decisions

test_allow if decisions.allow("why") == {"allow": true, "reason": "why"}

test_deny if decisions.deny("why") == {"allow": false, "reason": "why"}

test_deny_with if decisions.deny_with(404, "why") == {"allow": false, "reason": "why", "status": 404}

test_unauthenticated if {
	got := decisions.unauthenticated("why")
	got.allow == false
	got.status == 401
	got.headers == {"www-authenticate": "Bearer"}
}

test_obligations_nest if {
	labelled := decisions.labelled(decisions.allow("why"), {"rule": "r"})
	forwarding := decisions.forwarding(labelled, {"x-user": "alice"})
	decisions.answering(forwarding, {"x-served": "yes"}) == {
		"allow": true,
		"reason": "why",
		"labels": {"rule": "r"},
		"upstream": {"set_headers": {"x-user": "alice"}},
		"response": {"set_headers": {"x-served": "yes"}},
	}
}
