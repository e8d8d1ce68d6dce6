//! A page in a headless Chromium: served from memory, answered once, gone with the call.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A file of the page: its path, its media type, its text.
pub type File<'a> = (&'a str, &'a str, &'a str);

/// Chromium: `SOFTXENT_CHROMIUM`, or what the search path has.
pub fn find() -> Option<PathBuf> {
    let named = std::env::var_os("SOFTXENT_CHROMIUM").unwrap_or_default();
    if !named.is_empty() {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended already, both fail.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens `/` in Chromium and returns the JSON that the page posts to `/result`.
pub fn answer(chromium: &Path, files: &[File], limit: Duration) -> Result<Value, String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let profile = tempfile::tempdir().map_err(io("a folder for the browser's profile"))?;
    let log = profile.path().join("stderr");
    let stderr = std::fs::File::create(&log).map_err(io("the browser's log"))?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(io("a port to listen on"))?;
    listener.set_nonblocking(true).map_err(io("the port"))?;
    let address = listener.local_addr().map_err(io("the port"))?;
    let browser = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-dev-shm-usage"])
        // WebGPU on the processor, whatever GPU there is: the same adapter everywhere.
        .args(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{address}/"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|error| format!("{}: {error}", chromium.display()))?;
    let mut browser = Running(browser);
    let (started, mut asked) = (Instant::now(), Vec::new());
    let why = loop {
        match listener.accept() {
            // A connection that breaks is the browser's to open again.
            Ok((stream, _)) => {
                if let Ok(Some(answer)) = serve(stream, files, &mut asked) {
                    return Ok(answer);
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        if started.elapsed() > limit {
            break format!("no result within {limit:?}");
        }
        match browser.0.try_wait() {
            Ok(Some(status)) if !status.success() => break format!("it ended with {status}"),
            _ => {}
        }
    };
    let log = std::fs::read(&log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]);
    Err(format!(
        "{}: {why}; it asked for {asked:?}; the end of what it said:\n{tail}",
        chromium.display()
    ))
}

/// Answers one request; the value is what was posted to `/result`.
fn serve(
    mut stream: TcpStream,
    files: &[File],
    asked: &mut Vec<String>,
) -> std::io::Result<Option<Value>> {
    stream.set_nonblocking(false)?;
    // Browsers open connections ahead of use: one that says nothing must not hold up the next.
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    asked.push(path.clone());
    let posted = path == "/result";
    let (status, kind, text) = match files.iter().find(|(name, ..)| *name == path) {
        Some((_, kind, text)) => ("200 OK", *kind, *text),
        None if posted => ("200 OK", "text/plain", ""),
        None => ("404 Not Found", "text/plain", ""),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )?;
    Ok(posted.then(|| {
        serde_json::from_slice(&body)
            .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }))
    }))
}
