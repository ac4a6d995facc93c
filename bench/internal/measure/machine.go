package measure

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// A Machine is where and when something was measured.
type Machine struct {
	Time   string `json:"time"` // UTC
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	System string `json:"system"`
	Go     string `json:"go"`
	Load   string `json:"load"` // the three load averages, before measuring
}

// ThisMachine describes the machine as it is now. What the system does not tell stays empty.
func ThisMachine() Machine {
	m := Machine{
		Time:   time.Now().UTC().Format("2006-01-02 15:04"),
		Cores:  runtime.NumCPU(),
		System: runtime.GOOS + "/" + runtime.GOARCH,
		Go:     runtime.Version(),
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += " " + strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	return m
}

func (m Machine) String() string {
	return fmt.Sprintf("%s UTC, %s, %d cores, %s, %s, load %s", m.Time, m.CPU, m.Cores, m.System, m.Go, m.Load)
}
