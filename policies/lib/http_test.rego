package sallyport.http_test

import data.sallyport.http

cases := [
	{"pattern": "/v1/orders/**", "segments": ["v1", "orders", "42"], "want": true},
	{"pattern": "/v1/orders/**", "segments": ["v1", "orders", "42", "lines"], "want": true},
	{"pattern": "/v1/orders/**", "segments": ["v1", "orders"], "want": true},
	{"pattern": "/v1/orders/**", "segments": ["v1", "orders", ""], "want": true},
	{"pattern": "/v1/orders/**", "segments": ["v1", "ordersx"], "want": false},
	{"pattern": "/v1/orders/**", "segments": ["v1"], "want": false},
	{"pattern": "/v1/orders/**", "segments": ["v2", "orders", "42"], "want": false},
	{"pattern": "/**", "segments": [""], "want": true},
	{"pattern": "/**", "segments": ["a", "b"], "want": true},
	{"pattern": "/", "segments": [""], "want": true},
	{"pattern": "/", "segments": ["a"], "want": false},
	{"pattern": "/v1/*", "segments": ["v1", "orders"], "want": true},
	{"pattern": "/v1/*", "segments": ["v1", ""], "want": false},
	{"pattern": "/v1/*", "segments": ["v1", "orders", "42"], "want": false},
	{"pattern": "/v1/*/lines", "segments": ["v1", "orders", "lines"], "want": true},
	{"pattern": "/v1/*/lines", "segments": ["v1", "orders", "line"], "want": false},
	{"pattern": "/v1/{kind}/{id}", "segments": ["v1", "orders", "42"], "want": true},
	{"pattern": "/v1/{kind}/{id}", "segments": ["v1", "orders", ""], "want": false},
	{"pattern": "/v1/**/lines", "segments": ["v1", "orders", "lines"], "want": false},
	{"pattern": "v1/orders", "segments": ["v1", "orders"], "want": false},
	{"pattern": "", "segments": [""], "want": false},
]

test_segments_match[name] if {
	some tc in cases
	name := sprintf("%s against %v", [tc.pattern, tc.segments])
	_matches(tc.pattern, tc.segments) == tc.want
}

_matches(pattern, segments) if http.segments_match(pattern, segments)

else := false

test_path_matches_reads_the_request if {
	http.path_matches("/a/b") with input.request.segments as ["a", "b"]
	http.path_matches("/a/**") with input.request.segments as ["a"]
	http.path_matches("/a/*") with input.request.segments as ["a", "b"]
	not http.path_matches("/a/*") with input.request.segments as ["b", "a"]
	not http.path_matches("/a/*") with input as {}
}

test_method_in if {
	http.method_in(["GET", "HEAD"]) with input.request.method as "HEAD"
	http.method_in(["*"]) with input.request.method as "DELETE"
	not http.method_in(["GET"]) with input.request.method as "POST"
	not http.method_in([]) with input.request.method as "GET"
	not http.method_in("GET") with input.request.method as "GET"
	not http.method_in({"any": "*"}) with input.request.method as "GET"
}

test_header if {
	http.header("x-tenant") == "acme" with input.request.headers as {"x-tenant": ["acme"]}
	not http.header("x-tenant") with input.request.headers as {"x-tenant": ["acme", "other"]}
	not http.header("x-tenant") with input.request.headers as {}
}

test_query if {
	http.query("page") == "2" with input.request.query as {"page": ["2"]}
	not http.query("page") with input.request.query as {"page": ["2", "3"]}
	not http.query("page") with input.request.query as {}
}
