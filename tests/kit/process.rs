//! Runs other programs within a bound, and sends signals without a line of unsafe code.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use super::wait::poll;

/// Runs a program to its end with `input` on its standard input; panics if it takes longer than `timeout`.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8], timeout: Duration) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut standard_input = child.stdin.take().expect("piped");
    let standard_output = child.stdout.take().expect("piped");
    let standard_error = child.stderr.take().expect("piped");
    // The ends of the pipes have threads of their own, so that no full pipe can stop the program.
    let output = thread::spawn(move || read_all(standard_output));
    let errors = thread::spawn(move || read_all(standard_error));
    let input = input.to_vec();
    // A program that ends without reading everything is no fault of ours.
    thread::spawn(move || drop(standard_input.write_all(&input)));
    let Some(status) = poll(timeout, || child.try_wait().expect("the program can be waited for")) else {
        child.kill().expect("the program can be killed");
        child.wait().expect("the program can be waited for");
        panic!("{command:?} took longer than {timeout:?}");
    };
    let stdout = output.join().expect("reading a pipe does not panic");
    let stderr = errors.join().expect("reading a pipe does not panic");
    Output { status, stdout, stderr }
}

fn read_all(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("a pipe can be read");
    bytes
}

/// Sends `signal` (`TERM`, `KILL`, `STOP` …) to a process; false if there is none.
pub fn send_signal(signal: &str, process: u32) -> bool {
    signal_target(signal, &process.to_string())
}

/// Sends `signal` to every process of a group; false if there is none.
pub fn send_signal_to_group(signal: &str, group: u32) -> bool {
    signal_target(signal, &format!("-{group}"))
}

fn signal_target(signal: &str, target: &str) -> bool {
    let mut command = Command::new("kill");
    command.arg(format!("-{signal}")).arg("--").arg(target);
    run(&mut command, b"", Duration::from_secs(10)).status.success()
}

/// As a shell shows it: the code of an exit, 128 + number for an end by signal.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().expect("what has no code was ended by a signal"))
}

/// Memory that a process holds, in KiB.
pub fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has a size");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a size is a number")
}

/// Descriptors that a process has open.
pub fn open_descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).expect("the process is there").count()
}
