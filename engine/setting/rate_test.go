package setting_test

import (
	"testing"

	"github.com/sallyport/sallyport/engine/setting"
)

func TestRate(t *testing.T) {
	for _, tc := range []struct {
		text string
		want float64 // per hour
		back string
	}{
		{"100/s", 360000, "100/s"},
		{"1/s", 3600, "1/s"},
		{"100/m", 6000, "100/m"},
		{"120/m", 7200, "2/s"},
		{"7/h", 7, "7/h"},
		{"4294967295/s", 4294967295 * 3600, "4294967295/s"},
	} {
		var got setting.Rate
		if err := got.UnmarshalText([]byte(tc.text)); err != nil || got.Unlimited() || float64(got)*3600 != tc.want {
			t.Errorf("%q: %v, %v", tc.text, got, err)
		}
		if back, err := got.MarshalText(); err != nil || string(back) != tc.back {
			t.Errorf("%q is written %q, %v", tc.text, back, err)
		}
	}
	var got setting.Rate
	if err := got.UnmarshalText([]byte("unlimited")); err != nil || !got.Unlimited() || got.String() != "unlimited" {
		t.Errorf("unlimited: %v, %v", got, err)
	}
	for _, text := range []string{"", "/s", "0/s", "-1/s", "1.5/s", "100", "100/d", "100/", "1e3/s", "inf", "Unlimited", "99999999999/s", " 1/s"} {
		var r setting.Rate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, r)
		}
	}
}
