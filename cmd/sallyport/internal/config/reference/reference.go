// Package reference turns the configuration structs into what people and tools
// read: the JSON Schema of the file and the page that explains every key. Both
// come from the structs, their yaml tags, their defaults and their doc comments,
// so that neither can disagree with what the gateway accepts.
//
// It needs the source tree for the comments and runs at generation time only;
// the results are committed.
package reference

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/sallyport/sallyport/engine/setting"
)

const module = "github.com/sallyport/sallyport"

// Schema returns the JSON Schema (2020-12) of root, a struct. The working
// directory is the folder of the module, whose comments become descriptions.
func Schema(root any, title string) (*jsonschema.Schema, error) {
	r := &jsonschema.Reflector{
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		DoNotReference:             true,
		Anonymous:                  true,
		Mapper:                     scalar,
	}
	if err := r.AddGoComments(module, "./"); err != nil {
		return nil, fmt.Errorf("read the comments of the module: %w", err)
	}
	s := r.Reflect(root)
	s.Title = title
	defaults(s, reflect.ValueOf(root))
	rename(s)
	return s, nil
}

// rename puts the key where a comment begins with the name of the Go field, and
// drops the description of a section's type where the field has its own.
func rename(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if s.Properties != nil {
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			first, rest, _ := strings.Cut(p.Value.Description, " ")
			if strings.EqualFold(first, strings.ReplaceAll(p.Key, "_", "")) {
				p.Value.Description = p.Key + " " + rest
			}
			rename(p.Value)
		}
	}
	rename(s.Items)
	if s.AdditionalProperties != nil && s.AdditionalProperties.Properties != nil {
		rename(s.AdditionalProperties)
	}
}

// scalar is how types that read their own text are written.
func scalar(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, Examples: []any{"5s"}}
	case reflect.TypeFor[setting.Rate]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[1-9][0-9]*/(s|m|h)$|^unlimited$`, Examples: []any{"100/s"}}
	case reflect.TypeFor[setting.Size]():
		return &jsonschema.Schema{
			OneOf:    []*jsonschema.Schema{{Type: "string", Pattern: `^[0-9]+ ?(B|KB|MB|GB|KiB|MiB|GiB)?$`}, {Type: "integer", Minimum: "0"}},
			Examples: []any{"10MiB"},
		}
	}
	if t.Kind() != reflect.Struct && reflect.PointerTo(t).Implements(reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()) {
		return &jsonschema.Schema{Type: "string"}
	}
	return nil
}

// sampleName is the key of the element of a mapping whose values are the
// defaults of every element.
const sampleName = "NAME"

// defaults writes the values of v, the configuration of an empty file, into the
// schema. Values that equal Go's zero value are left out: absent is what they
// mean. Lists of sections hold one sample, mappings one named NAME.
func defaults(s *jsonschema.Schema, v reflect.Value) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	switch {
	case v.IsZero():
		return
	case v.Kind() == reflect.Map:
		if e := v.MapIndex(reflect.ValueOf(sampleName)); e.IsValid() && s.AdditionalProperties != nil {
			defaults(s.AdditionalProperties, e)
		}
		return
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		defaults(s.Items, v.Index(0))
		return
	case v.Kind() != reflect.Struct || s.Properties == nil:
		s.Default = text(v)
		return
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if strings.Contains(opts, "inline") {
			defaults(s, v.Field(i))
		} else if p, ok := s.Properties.Get(name); ok {
			defaults(p, v.Field(i))
		}
	}
}

// text is the value as a person writes it in the file.
func text(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		s := x.String()
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(s, zero) {
				s = s[:len(s)-2]
			}
		}
		return s
	case fmt.Stringer:
		return x.String()
	default:
		return v.Interface()
	}
}

// JSON writes the schema as it is committed.
func JSON(s *jsonschema.Schema) ([]byte, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	return append(b, '\n'), nil
}

// Markdown writes the page that explains every key, in the order of the structs.
func Markdown(s *jsonschema.Schema, intro string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", s.Title, intro)
	section(&b, s, "")
	return b.String()
}

func section(b *strings.Builder, s *jsonschema.Schema, key string) {
	if s.Properties != nil && s.Properties.Len() > 0 {
		table(b, s, key)
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			section(b, p.Value, join(key, p.Key))
		}
	}
	if s.Items != nil {
		section(b, s.Items, key+"[]")
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Properties != nil {
		section(b, s.AdditionalProperties, join(key, "NAME"))
	}
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func table(b *strings.Builder, s *jsonschema.Schema, key string) {
	if key != "" {
		fmt.Fprintf(b, "\n## `%s`\n", key)
		if s.Description != "" {
			fmt.Fprintf(b, "\n%s\n", s.Description)
		}
	}
	b.WriteString("\n| key | value | default | meaning |\n|---|---|---|---|\n")
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		def := ""
		if p.Value.Default != nil {
			def = "`" + written(p.Value.Default) + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", p.Key, kind(p.Value), def, cell(p.Value.Description))
	}
}

// written is a default as the file would have it.
func written(v any) string {
	list, ok := v.([]string)
	if !ok {
		return fmt.Sprint(v)
	}
	words := make([]string, len(list))
	for i, w := range list {
		if words[i] = w; w == "" {
			words[i] = `""`
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "|", "\\|")
}

func kind(s *jsonschema.Schema) string {
	switch {
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i] = fmt.Sprintf("`%v`", e)
		}
		return strings.Join(words, ", ")
	case len(s.OneOf) > 0:
		return "size"
	case s.Type == "array" && s.Items != nil:
		return "list of " + kind(s.Items)
	case s.Type == "object" && s.AdditionalProperties != nil && s.Properties.Len() == 0:
		return "mapping"
	case strings.HasSuffix(s.Pattern, "unlimited$"):
		return "rate"
	case s.Pattern != "":
		return "duration"
	case s.Type == "":
		return "any"
	default:
		return map[string]string{"object": "section", "string": "text", "integer": "number", "number": "number", "boolean": "true or false"}[s.Type]
	}
}
