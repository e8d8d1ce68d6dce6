//! The `softxent` command.

mod cli;

fn main() -> std::process::ExitCode {
    // Where this is not an absolute path, as in most containers, Mesa's search for a Wayland display
    // prints "error: XDG_RUNTIME_DIR is invalid or not set" on standard error in our name.
    #[cfg(target_os = "linux")]
    if !std::env::var_os("XDG_RUNTIME_DIR")
        .is_some_and(|folder| std::path::Path::new(&folder).is_absolute())
    {
        // SAFETY: there is no other thread yet that could read the environment.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", "/nonexistent") };
    }
    cli::main()
}
