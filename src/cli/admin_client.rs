//! Asks a running daemon, through its admin socket, to do what would otherwise be done beside it.
//!
//! Which requests exist is `http::admin`; what to do without a daemon is `books_access`.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use actix_web::web::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::http_client;

/// The daemon answers after its commit; it waits for a lock for less than this.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A look waits for no write.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// Asks the daemon behind `socket` to tell something. None: no daemon listens there.
pub async fn get<A: DeserializeOwned>(socket: &Path, route: &str) -> Result<Option<A>, Failure> {
    ask(socket, client(socket, LOOK_TIMEOUT)?.get(url(route))).await
}

/// The same of something that may not be there: none as well where the daemon knows of no such thing.
pub async fn find<A: DeserializeOwned>(socket: &Path, route: &str) -> Result<Option<A>, Failure> {
    let Some((status, body)) = send(socket, client(socket, LOOK_TIMEOUT)?.get(url(route))).await? else {
        return Ok(None);
    };
    if status == StatusCode::NOT_FOUND { Ok(None) } else { read(status, &body).map(Some) }
}

/// Posts `question` to the daemon behind `socket`. None: no daemon listens there.
pub async fn post<A: DeserializeOwned>(
    socket: &Path,
    route: &str,
    question: &impl Serialize,
) -> Result<Option<A>, Failure> {
    let body = serde_json::to_vec(question)
        .map_err(|error| Failure::refused(format!("the request cannot be written as JSON: {error}")))?;
    let client = client(socket, TIMEOUT)?;
    ask(socket, client.post(url(route)).header(CONTENT_TYPE, "application/json").body(body)).await
}

fn client(socket: &Path, timeout: Duration) -> Result<Client, Failure> {
    http_client::build(http_client::plain().unix_socket(socket).timeout(timeout))
}

/// The host is part of every URL; through a socket it means nothing.
fn url(route: &str) -> String {
    format!("http://hookledger{route}")
}

async fn ask<A: DeserializeOwned>(socket: &Path, request: RequestBuilder) -> Result<Option<A>, Failure> {
    let answer = send(socket, request).await?;
    answer.map(|(status, body)| read(status, &body)).transpose()
}

async fn send(socket: &Path, request: RequestBuilder) -> Result<Option<(StatusCode, Bytes)>, Failure> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return no_connection(socket, &error),
        Err(error) => return Err(no_answer(&error)),
    };
    let status = response.status();
    let body = response.bytes().await.map_err(|error| no_answer(&error))?;
    Ok(Some((status, body)))
}

/// Only where surely nobody listens may the command write by itself.
fn no_connection<A>(socket: &Path, error: &reqwest::Error) -> Result<Option<A>, Failure> {
    let socket = socket.display();
    match http_client::io_kind(error) {
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Some(ErrorKind::PermissionDenied) => Err(Failure::refused(format!(
            "this user may not open the daemon's socket {socket}: run the command as the daemon's user"
        ))),
        _ => {
            let reason = http_client::reason(error);
            Err(Failure::refused(format!("the daemon's socket {socket} cannot be connected to: {reason}")))
        }
    }
}

/// The daemon took the request: it may have been carried out, so nothing is written beside it.
fn no_answer(error: &reqwest::Error) -> Failure {
    let reason = http_client::reason(error);
    Failure::refused(format!(
        "the daemon did not answer ({reason}); it may have done what was asked: look before you repeat it"
    ))
}

fn read<A: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<A, Failure> {
    if status == StatusCode::OK {
        return serde_json::from_slice(body).map_err(|error| {
            Failure::refused(format!(
                "the daemon did what was asked, and its answer cannot be read ({error}): is it of another version?"
            ))
        });
    }
    let message = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => format!("the daemon answered {status}: is it of another version?"),
    };
    Err(match status {
        StatusCode::SERVICE_UNAVAILABLE => Failure::database(message),
        // The daemon's own configuration does not allow it.
        StatusCode::UNPROCESSABLE_ENTITY => Failure::usage(message),
        _ => Failure::refused(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::{EXIT_DATABASE, EXIT_FAILED, EXIT_USAGE};
    use crate::storage::books::Created;

    #[test]
    fn the_status_decides_the_exit_code() {
        let made = read::<Created>(StatusCode::OK, br#"{"id":"7"}"#).unwrap();
        assert_eq!(made.id, "7");
        let refusal = br#"{"success":false,"message":"no"}"#;
        for (status, exit_code) in [
            (StatusCode::BAD_REQUEST, EXIT_FAILED),
            (StatusCode::NOT_FOUND, EXIT_FAILED),
            (StatusCode::CONFLICT, EXIT_FAILED),
            (StatusCode::SERVICE_UNAVAILABLE, EXIT_DATABASE),
            (StatusCode::UNPROCESSABLE_ENTITY, EXIT_USAGE),
        ] {
            let failure = read::<Created>(status, refusal).unwrap_err();
            assert_eq!(failure, Failure { exit_code, message: "no".to_owned() });
        }
        assert!(read::<Created>(StatusCode::BAD_GATEWAY, b"<html>").unwrap_err().message.contains("502"));
    }

    #[tokio::test]
    async fn without_a_daemon_there_is_no_answer_and_no_error() {
        let nobody = std::env::temp_dir().join(format!("hookledger-nobody-{}.sock", std::process::id()));
        assert!(post::<Created>(&nobody, "/admin/v1/users", &()).await.unwrap().is_none());
        // A file that a crashed daemon left behind.
        drop(std::os::unix::net::UnixListener::bind(&nobody).unwrap());
        let answer = post::<Created>(&nobody, "/admin/v1/users", &()).await;
        std::fs::remove_file(&nobody).unwrap();
        assert!(answer.unwrap().is_none());
    }
}
