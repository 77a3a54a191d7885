//! PID 1 of the box. All of it is in [`windlass::runner`].

fn main() -> std::process::ExitCode {
    windlass::runner::main(std::env::args_os().skip(1))
}
