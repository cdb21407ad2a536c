package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"text/template"
)

// functions are Edge Stack's beside Go's own, of which those that print take what
// is missing for nothing.
func functions() template.FuncMap {
	return template.FuncMap{
		"hasKey":   hasKey,
		"doNotSet": func() (string, error) { return "", errUnset },
		"json":     indentedJSON,
		"printf":   printf,
		"print":    short(fmt.Sprint),
		"println":  short(fmt.Sprintln),
		"html":     short(template.HTMLEscaper),
		"js":       short(template.JSEscaper),
		"urlquery": short(template.URLQueryEscaper),
		"_text":    printable,
		"_step":    step,
	}
}

// hasKey reports whether an object has a member. What is not there has none.
func hasKey(object any, key string) bool {
	m := reflect.ValueOf(object)
	return m.Kind() == reflect.Map && m.Type().Key().Kind() == reflect.String &&
		m.MapIndex(reflect.ValueOf(key).Convert(m.Type().Key())).IsValid()
}

// indentedJSON writes v as JSON, on one line if indent is empty.
func indentedJSON(indent string, v any) (string, error) {
	write := func() ([]byte, error) { return json.Marshal(v) }
	if indent != "" {
		write = func() ([]byte, error) { return json.MarshalIndent(v, "", indent) }
	}
	out, err := write()
	if err != nil {
		return "", err
	}
	return fitting(string(out))
}

// printf prints nothing at all when an argument is missing: "%!s(<nil>)" would
// reach an upstream as if it were a name.
func printf(format string, args ...any) (string, error) {
	for _, a := range args {
		if a == nil {
			return "", nil
		}
	}
	return fitting(fmt.Sprintf(format, args...))
}

// short makes a function of one that prints what is missing as nothing.
func short(print func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) { return fitting(print(present(args)...)) }
}

// fitting refuses a text that no header and no body could have: a loop that doubles
// one would take all memory in a few turns.
func fitting(s string) (string, error) {
	if len(s) > maxBody {
		return "", errTooLong
	}
	return s, nil
}

// present returns args with nothing in place of what is missing.
func present(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = printable(a)
	}
	return out
}

// printable is what an action prints for v.
func printable(v any) any {
	if v == nil {
		return ""
	}
	return v
}

// step counts one turn of a loop.
func step(root any) (string, error) {
	data, _ := root.(map[string]any)
	b, ok := data[budgetKey].(*budget)
	if !ok {
		return "", errors.New("no budget to loop with")
	}
	if b.left--; b.left < 0 {
		return "", fmt.Errorf("loops take more than %d turns", maxSteps)
	}
	return "", nil
}
