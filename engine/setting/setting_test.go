package setting_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/setting"
)

func TestSize(t *testing.T) {
	for _, tc := range []struct {
		text string
		want setting.Size
		back string
	}{
		{"0", 0, "0B"},
		{"17", 17, "17B"},
		{"17B", 17, "17B"},
		{"64KiB", 64 << 10, "64KiB"},
		{"10 MiB", 10 << 20, "10MiB"},
		{"1024KiB", 1 << 20, "1MiB"},
		{"2GiB", 2 << 30, "2GiB"},
		{"1KB", 1000, "1000B"},
		{"3MB", 3e6, "3000000B"},
		{"1GB", 1e9, "1000000000B"},
	} {
		var got setting.Size
		if err := got.UnmarshalText([]byte(tc.text)); err != nil || got != tc.want {
			t.Errorf("%q: %d, %v", tc.text, got, err)
		}
		back, err := got.MarshalText()
		if err != nil || string(back) != tc.back {
			t.Errorf("%q is written %q, %v", tc.text, back, err)
		}
	}
	for _, text := range []string{"", "B", "MiB", "-1", "-1KiB", "1.5MiB", "1TiB", "0x10", "9000000000GiB", "1MiB1"} {
		var s setting.Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %d", text, s)
		}
	}
}

func TestProblems(t *testing.T) {
	cause := errors.New("cause")
	inner := errors.Join(setting.Problemf("a.b", "is %w", cause), setting.Problemf("[1].c", "is wrong"), setting.Problemf("", "is empty"), errors.New("plain"))
	outer := setting.Under("routes", inner)
	var got []string
	for _, p := range setting.Problems(errors.Join(nil, outer, fmt.Errorf("wrapped: %w", cause))) {
		got = append(got, p.Key+" | "+p.Error())
	}
	want := []string{
		"routes.a.b | routes.a.b: is cause",
		"routes[1].c | routes[1].c: is wrong",
		"routes | routes: is empty",
		"routes | routes: plain",
		" | wrapped: cause",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(outer, cause) {
		t.Error("the cause is lost")
	}
	if setting.Under("x", nil) != nil || setting.Problems(nil) != nil {
		t.Error("no error is a problem")
	}
}
