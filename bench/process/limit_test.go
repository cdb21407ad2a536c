package process_test

import (
	"math"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/bench/process"
)

func TestOpenFilesHoldsForWhatIsStarted(t *testing.T) {
	if err := process.OpenFiles(64); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(out)); len(f) != 2 || f[0] != f[1] {
		t.Errorf("soft and hard limit of a child: %q", f)
	}
}

func TestOpenFilesSaysWhatToDo(t *testing.T) {
	const count = math.MaxUint64 - 1
	err := process.OpenFiles(count)
	if err == nil || !strings.Contains(err.Error(), "ulimit -Hn "+strconv.FormatUint(count, 10)) {
		t.Errorf("got %v", err)
	}
}
