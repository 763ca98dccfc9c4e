package main

// #include <blink.h>
import "C"

import "runtime"

// Blink is the library, opened.
type Blink struct{ handle *C.blink }

// Sandbox frees its sandbox when it is closed, and when nobody has it any more. Handles are never given out twice: the second
// of the two does nothing, and whoever uses a closed one is told.
type Sandbox struct{ handle *C.blink_sandbox }

// Open opens Blink with whatever isolation works here.
func Open() (*Blink, error) {
	var options C.blink_options
	var failed *C.blink_error
	C.blink_options_init(&options, C.sizeof_blink_options)
	options.isolation = C.BLINK_ISOLATION_AUTO
	b := new(Blink)
	if C.blink_open(&options, &b.handle, &failed) != C.BLINK_STATUS_OK {
		return nil, failure(failed)
	}
	return b, nil
}

// Close lets go of the library.
func (b *Blink) Close() { C.blink_close(b.handle) }

// NewSandbox boots a sandbox.
func (b *Blink) NewSandbox() (*Sandbox, error) {
	var failed *C.blink_error
	s := new(Sandbox)
	if C.blink_sandbox_create(b.handle, nil, nil, &s.handle, &failed) != C.BLINK_STATUS_OK {
		return nil, failure(failed)
	}
	runtime.SetFinalizer(s, (*Sandbox).Close)
	return s, nil
}

// Ping asks the sandbox for a sign of life.
func (s *Sandbox) Ping() error {
	defer runtime.KeepAlive(s)
	var failed *C.blink_error
	if C.blink_sandbox_ping(s.handle, nil, &failed) != C.BLINK_STATUS_OK {
		return failure(failed)
	}
	return nil
}

// Close ends the sandbox.
func (s *Sandbox) Close() { C.blink_sandbox_free(s.handle) }
