# METADATA
# title: HTTP request
# description: |
#   Questions about the request: its path against the pattern language of the
#   gateway's routes, its method, its headers and its query.
# schemas:
#   - input: schema.input
package sallyport.http

# METADATA
# title: Path pattern
# description: |
#   Holds when the request's path matches the pattern. A pattern is compared
#   segment by segment with the decoded path: "*" and "{name}" stand for one
#   segment that is not empty, and a final "**" for any rest, nothing included.
#   A pattern that does not start with "/" matches nothing.
path_matches(pattern) if _path == pattern

path_matches(pattern) if {
	endswith(pattern, "/**")
	startswith(_path_and_rest, trim_suffix(pattern, "**"))
}

path_matches(pattern) if {
	is_wild(pattern)
	segments_match(pattern, input.request.segments)
}

# METADATA
# title: Wild pattern
# description: Holds when the pattern has segments that stand for others, before a final "**".
is_wild(pattern) if regex.match(`[*{]`, trim_suffix(pattern, "/**"))

# The decoded path, in one piece. Segments have no "/": the gateway refuses "%2f".
_path := concat("/", array.concat([""], input.request.segments))

# "/a/**" covers "/a" too.
_path_and_rest := concat("", [_path, "/"])

# METADATA
# title: Path pattern against given segments
# description: As path_matches, for segments that the caller supplies.
segments_match(pattern, segments) if {
	startswith(pattern, "/")
	want := split(substring(pattern, 1, -1), "/")
	_cover(want, segments)
}

_cover(want, got) if {
	last := count(want) - 1
	want[last] == "**"
	count(got) >= last
	_all_match(array.slice(want, 0, last), got)
}

_cover(want, got) if {
	count(want) == count(got)
	_all_match(want, got)
}

_all_match(want, got) if {
	every i, pattern in want {
		_segment_matches(pattern, got[i])
	}
}

_segment_matches(pattern, segment) if pattern == segment

_segment_matches("*", segment) if segment != ""

_segment_matches(pattern, segment) if {
	startswith(pattern, "{")
	endswith(pattern, "}")
	segment != ""
}

# METADATA
# title: Method
# description: |
#   Holds when the request's method is one of the list, or the list has "*".
#   Methods are upper case, as they are on the wire.
method_in(methods) if {
	is_array(methods)
	input.request.method in methods
}

method_in(methods) if {
	is_array(methods)
	"*" in methods
}

# METADATA
# title: Header
# description: |
#   The only value of a request header, by its lower-case name. Undefined when
#   the client did not send it, and when it sent it twice: a rule that looks at
#   one of two values is a way around that rule.
header(name) := values[0] if {
	values := input.request.headers[name]
	count(values) == 1
}

# METADATA
# title: Query parameter
# description: |
#   The only value of a query parameter. Undefined when it is absent or given
#   more than once.
query(name) := values[0] if {
	values := input.request.query[name]
	count(values) == 1
}
