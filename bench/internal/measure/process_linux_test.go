package measure

import (
	"os"
	"testing"
	"time"
)

func TestOwnProcess(t *testing.T) {
	before, err := OwnCPU()
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; {
	}
	after, err := OwnCPU()
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used <= 0 || used > 10*time.Second {
		t.Errorf("50 ms of spinning used %v of CPU time", used)
	}
	proc, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if d := proc - after; d < -time.Second || d > time.Second {
		t.Errorf("/proc says %v, getrusage %v", proc, after)
	}
	if rss, err := RSS(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("RSS = %d, %v", rss, err)
	}
	if _, err := CPU(1 << 30); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
}
