//go:build !linux

package measure

import (
	"errors"
	"os"
	"time"
)

var errLinux = errors.New("CPU time and memory are read from /proc, which only Linux has")

// CPU is the processor time that a process has used so far. It is known on Linux only.
func CPU(int) (time.Duration, error) { return 0, errLinux }

// RSS is the resident memory of a process in bytes. It is known on Linux only.
func RSS(int) (int64, error) { return 0, errLinux }

// OwnCPU is the processor time that this process has used so far. It is known on Linux only.
func OwnCPU() (time.Duration, error) { return 0, errLinux }

// Datasync makes what was written to f durable.
func Datasync(f *os.File) error { return f.Sync() }

// SyncAll does nothing where the system has no such call.
func SyncAll() {}
