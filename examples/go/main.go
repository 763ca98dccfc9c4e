// Runs a command in a sandbox, and keeps state in a session, through libblink.
package main

// #cgo pkg-config: blink
// #include <blink.h>
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"os"
	"unsafe"
)

// failure takes an error of libblink's. A call that succeeds sets none.
func failure(err *C.blink_error) error {
	defer C.blink_error_free(err)
	return fmt.Errorf("%s: %s", C.GoString(C.blink_status_name(C.int32_t(C.blink_error_status(err)))),
		C.GoString(C.blink_error_message(err)))
}

// withCommand describes a command for the time of a call. What C borrows lies in C's memory.
func withCommand(argv []string, call func(*C.blink_command) error) error {
	pointers := (**C.char)(C.malloc(C.size_t(len(argv)) * C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(pointers))
	for i, arg := range argv {
		text := C.CString(arg)
		defer C.free(unsafe.Pointer(text))
		unsafe.Slice(pointers, len(argv))[i] = text
	}
	command := (*C.blink_command)(C.malloc(C.sizeof_blink_command))
	defer C.free(unsafe.Pointer(command))
	C.blink_command_init(command, C.sizeof_blink_command)
	command.argv = pointers
	command.argv_count = C.size_t(len(argv))
	return call(command)
}

// take copies what a program wrote, and frees the output.
func take(output *C.blink_output) []byte {
	defer C.blink_output_free(output)
	var length C.size_t
	bytes := C.blink_output_stdout(output, &length)
	return C.GoBytes(unsafe.Pointer(bytes), C.int(length))
}

func run(all *C.blink, argv ...string) (stdout []byte, err error) {
	err = withCommand(argv, func(command *C.blink_command) error {
		var output *C.blink_output
		var failed *C.blink_error
		if C.blink_run(all, nil, command, nil, &output, &failed) != C.BLINK_STATUS_OK {
			return failure(failed)
		}
		stdout = take(output)
		return nil
	})
	return stdout, err
}

func exec(session *C.blink_session, argv ...string) (stdout []byte, err error) {
	err = withCommand(argv, func(command *C.blink_command) error {
		var output *C.blink_output
		var failed *C.blink_error
		var sandbox *C.blink_sandbox
		if C.blink_session_sandbox(session, nil, &sandbox, &failed) != C.BLINK_STATUS_OK {
			return failure(failed)
		}
		defer C.blink_sandbox_free(sandbox)
		if C.blink_sandbox_exec(sandbox, command, nil, &output, &failed) != C.BLINK_STATUS_OK {
			return failure(failed)
		}
		stdout = take(output)
		return nil
	})
	return stdout, err
}

func examples() error {
	var options C.blink_options
	var failed *C.blink_error
	C.blink_options_init(&options, C.sizeof_blink_options)
	options.isolation = C.BLINK_ISOLATION_AUTO
	var all *C.blink
	if C.blink_open(&options, &all, &failed) != C.BLINK_STATUS_OK {
		return failure(failed)
	}
	defer C.blink_close(all)

	stdout, err := run(all, "python3", "-c", "print(6 * 7)")
	if err != nil {
		return err
	}
	fmt.Printf("a command: %s", stdout)

	name := C.CString("go-example")
	defer C.free(unsafe.Pointer(name))
	var session *C.blink_session
	if C.blink_session_open(all, name, nil, nil, &session, &failed) != C.BLINK_STATUS_OK {
		return failure(failed)
	}
	defer C.blink_session_free(session)
	for i := 0; i < 2; i++ {
		if _, err := exec(session, "/bin/sh", "-c", "echo line >> /var/blink/memory/notes"); err != nil {
			return err
		}
	}
	if stdout, err = exec(session, "wc", "-l", "/var/blink/memory/notes"); err != nil {
		return err
	}
	fmt.Printf("a session: %s", stdout)
	if C.blink_session_remove(session, &failed) != C.BLINK_STATUS_OK {
		return failure(failed)
	}
	return nil
}

func main() {
	if err := examples(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
