package decisionlog

import (
	"fmt"
	"strings"
	"testing"
)

// TestMultimapOfAnySize compares with what each field alone says, below and above
// the number of fields that are searched one by one.
func TestMultimapOfAnySize(t *testing.T) {
	enc := &encoder{}
	for _, n := range []int{0, 1, 2, few, few + 1, few + 2, 3 * few, 20 * few, 3} {
		m, want, names := enc.multimap(), map[string][]string{}, []string{}
		for i := range n {
			name := fmt.Sprintf("n%d", i%7*i%40)
			if want[name] == nil {
				names = append(names, name)
			}
			want[name] = append(want[name], fmt.Sprint(i))
			m.add(name, fmt.Sprint(i))
		}
		var text []string
		for _, name := range names {
			text = append(text, fmt.Sprintf("%q:[%q]", name, want[name]))
		}
		w := &buffer{}
		enc.write(w, "x", &m)
		expected := `"x":{` + strings.NewReplacer("[[", "[", "]]", "]", `" "`, `","`).Replace(strings.Join(text, ",")) + "}"
		if string(w.b) != expected {
			t.Errorf("%d fields:\n got %s\nwant %s", n, w.b, expected)
		}
		if cap(enc.fields) > 8*few {
			t.Errorf("%d fields leave memory for %d", n, cap(enc.fields))
		}
	}
}
