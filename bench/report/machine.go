package report

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine is where a run took place.
type Machine struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	MemoryGiB  float64 `json:"memory_gib"`
	Kernel     string  `json:"kernel"`
	LoadBefore string  `json:"load_average_before"` // of 1, 5 and 15 minutes
	LoadAfter  string  `json:"load_average_after"`
}

// ThisMachine reads /proc.
func ThisMachine() (Machine, error) {
	texts := map[string]string{}
	for _, name := range []string{"/proc/cpuinfo", "/proc/meminfo", "/proc/sys/kernel/osrelease"} {
		raw, err := os.ReadFile(name) //nolint:gosec // three names below /proc
		if err != nil {
			return Machine{}, fmt.Errorf("describe the machine: %w", err)
		}
		texts[name] = string(raw)
	}
	var kib float64
	if _, err := fmt.Sscan(field(texts["/proc/meminfo"], "MemTotal"), &kib); err != nil {
		return Machine{}, fmt.Errorf("describe the machine: memory: %w", err)
	}
	load, err := LoadAverage()
	return Machine{
		CPU: field(texts["/proc/cpuinfo"], "model name"), Cores: runtime.NumCPU(), MemoryGiB: kib / (1 << 20),
		Kernel: strings.TrimSpace(texts["/proc/sys/kernel/osrelease"]), LoadBefore: load,
	}, err
}

// String describes the machine in two sentences.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.1f GiB, Linux %s. Load average before: %s, after: %s.",
		m.CPU, m.Cores, m.MemoryGiB, m.Kernel, m.LoadBefore, m.LoadAfter)
}

// LoadAverage returns the three averages of /proc/loadavg.
func LoadAverage() (string, error) {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", fmt.Errorf("read the load average: %w", err)
	}
	fields := strings.Fields(string(raw))
	return strings.Join(fields[:min(3, len(fields))], " "), nil
}

// field returns the value of the first "name: value" line.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
