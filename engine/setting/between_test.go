package setting_test

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
)

func TestBetween(t *testing.T) {
	for got, want := range map[time.Duration]string{
		0: "wait: 0s is not between 1s and 1m0s", time.Second: "", time.Minute: "", time.Minute + 1: "wait: 1m0.000000001s is not between 1s and 1m0s",
	} {
		err := setting.Between("wait", got, time.Second, time.Minute)
		if err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: got %v, want %q", got, err, want)
		}
	}
	if err := setting.Between("size", -1, 0, 1<<24); err == nil || err.Error() != "size: -1 is not between 0 and 16777216" {
		t.Errorf("got %v", err)
	}
	if err := setting.Between("bytes", setting.Size(1), 1<<20, 1<<30); err == nil || err.Error() != "bytes: 1B is not between 1MiB and 1GiB" {
		t.Errorf("got %v", err)
	}
}
