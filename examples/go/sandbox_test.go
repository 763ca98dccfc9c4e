package main

import (
	"runtime"
	"strings"
	"testing"
)

// A closed sandbox's finalizer runs while others live, which it must not end.
func TestCloseAndFinalizerBothFree(t *testing.T) {
	all, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	var kept []*Sandbox
	for i := 0; i < 10; i++ {
		closed, err := all.NewSandbox()
		if err != nil {
			t.Fatal(err)
		}
		closed.Close()
		if err := closed.Ping(); err == nil || !strings.Contains(err.Error(), "freed") {
			t.Fatalf("a closed sandbox says %v", err)
		}
		finalized := make(chan struct{})
		runtime.SetFinalizer(closed, nil)
		runtime.SetFinalizer(closed, func(s *Sandbox) { s.Close(); close(finalized) })
		closed = nil
		next, err := all.NewSandbox()
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, next)
		for done := false; !done; {
			runtime.GC()
			select {
			case <-finalized:
				done = true
			default:
				runtime.Gosched()
			}
		}
		for _, sandbox := range kept {
			if err := sandbox.Ping(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, sandbox := range kept {
		sandbox.Close()
	}
}
