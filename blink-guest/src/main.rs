//! The program; the library beside it is all of it, so that others can be built with parts of it.

fn main() -> std::process::ExitCode {
    blink_guest::main()
}
