//! Requests: decoding and the shorter answers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_kernel::config::{Program, Stdio, User};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::connection::Connection;
use super::{MOST_JOINED, Permit, files, run};
use crate::failure::{Code, Failure};
use crate::kernel_process::{exited, shut_down};
use crate::machine::Machine;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

/// Who acts inside.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Who {
    /// By numbers.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// By name.
    Name {
        /// In the guest's `/etc/passwd`.
        name: String,
    },
}

/// The user that a request names; root if none.
pub fn user(who: Option<Who>) -> User {
    match who {
        None => User::Ids { uid: 0, gid: 0 },
        Some(Who::Ids { uid, gid }) => User::Ids { uid, gid },
        Some(Who::Name { name }) => User::Name(name),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default = "root_directory")]
    workdir: String,
    user: Option<Who>,
    tty: Option<Size>,
}

fn root_directory() -> String {
    "/".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    rows: u16,
    columns: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    pid: i32,
    signal: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    pid: i32,
    rows: u16,
    columns: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    pid: i32,
}

/// Parameters of a request as their type.
pub fn decode<T: DeserializeOwned>(params: Value) -> Result<T, Failure> {
    let params = if params.is_null() { json!({}) } else { params };
    serde_json::from_value(params).map_err(|error| Failure::invalid(format!("Malformed parameters: {error}")))
}

/// An error number of the guest's kernel as a failure.
pub fn refused(what: &str, errno: Errno) -> Failure {
    let error = std::io::Error::from_raw_os_error(i32::from(errno.0));
    Failure::host(what, error)
}

/// Answers one request; what takes long is answered later.
pub fn serve(connection: &Arc<Connection>, text: &[u8], descriptors: Vec<OwnedFd>) {
    let request: Request = match serde_json::from_slice(text) {
        Ok(request) => request,
        Err(error) => {
            return connection.reply(&Value::Null, Err(Failure::invalid(format!("Malformed request: {error}"))), None);
        }
    };
    let Request { id, method, params } = request;
    let machine = &connection.server.machine;
    let result = match method.as_str() {
        "ping" => Ok(json!({})),
        "exec" => return exec(connection, &id, params, descriptors),
        "wait" => decode(params).and_then(|Wait { pid }| announce_exit(connection, pid).map(|()| json!({}))),
        "signal" => decode(params).and_then(|Signal { pid, signal }| {
            machine
                .signal(pid, signal)
                .map(|()| json!({}))
                .map_err(|errno| refused(&format!("Cannot send signal {signal} to {pid}"), errno))
        }),
        "resize" => decode(params).and_then(|Resize { pid, rows, columns }| {
            machine
                .resize(pid, rows, columns)
                .map(|()| json!({}))
                .map_err(|errno| refused(&format!("Cannot resize the terminal of {pid}"), errno))
        }),
        "connect" => {
            return join(
                connection,
                &id,
                params,
                descriptors,
                |_, _| Ok(()),
                |machine, port, host, over| machine.connect(port, host, over),
            );
        }
        "accept" => {
            return join(
                connection,
                &id,
                params,
                descriptors,
                |machine, port| machine.listen(port),
                |machine, port, host, over| machine.accept(port, host, over),
            );
        }
        "processes" => Ok(Value::Array(machine.processes())),
        "stats" => Ok(machine.stats()),
        "shutdown" => {
            connection.reply(&id, Ok(json!({})), None);
            shut_down(&connection.server.link)
        }
        _ => return files::serve(connection, &id, &method, params, descriptors),
    };
    connection.reply(&id, result, descriptors.into_iter().next());
}

/// How a host socket and a port inside come together.
type Join = fn(&dyn Machine, u16, OwnedFd, Box<dyn Send>) -> Result<(), Failure>;

/// What is done before anything else is, so that programs started by the next request find it done.
type Before = fn(&dyn Machine, u16) -> Result<(), Failure>;

/// Joins a host socket with a port inside. The other side may take its time, so it happens in a thread of its own.
fn join(connection: &Arc<Connection>, id: &Value, params: Value, descriptors: Vec<OwnedFd>, before: Before, how: Join) {
    let request = decode::<Port>(params).and_then(|Port { port }| {
        let host = descriptors.into_iter().next().ok_or_else(|| Failure::invalid("The request needs a descriptor of a stream socket"))?;
        let permit = Permit::take(&connection.server, |server| &server.joined, MOST_JOINED).ok_or_else(|| {
            Failure::new(Code::Limit, format!("The sandbox has {MOST_JOINED} connections to its ports already")).hint("close some")
        })?;
        before(&*connection.server.machine, port)?;
        Ok((port, host, permit))
    });
    let (client, name) = (Arc::clone(connection), id.clone());
    let started = request.and_then(|(port, host, permit)| {
        run("connect", move || {
            let result = how(&*client.server.machine, port, host, Box::new(permit));
            client.reply(&name, result.map(|()| json!({})), None);
        })
    });
    if let Err(failure) = started {
        connection.reply(id, Err(failure), None);
    }
}

fn exec(connection: &Arc<Connection>, id: &Value, params: Value, descriptors: Vec<OwnedFd>) {
    let result = decode::<Exec>(params).and_then(|exec| {
        if exec.args.is_empty() {
            return Err(Failure::invalid("There is no program to run: `args` is empty"));
        }
        let program = Program {
            args: exec.args.into_iter().map(String::into_bytes).collect(),
            env: exec.env.into_iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect(),
            workdir: exec.workdir.into_bytes(),
            user: user(exec.user),
            stdio: streams(exec.tty, descriptors)?,
        };
        connection.server.machine.spawn(program)
    });
    // The reply goes out before the exit can be announced.
    let pid = result.as_ref().ok().copied();
    connection.reply(id, result.map(|pid| json!({"pid": pid})), None);
    if let Some(pid) = pid {
        // It is our child until somebody waits for it, so it cannot be unknown.
        let _ = announce_exit(connection, pid);
        connection.server.machine.expect_more();
    }
}

fn streams(tty: Option<Size>, descriptors: Vec<OwnedFd>) -> Result<Stdio, Failure> {
    let mut descriptors = descriptors.into_iter();
    let first = descriptors.next();
    let second = descriptors.next();
    match (tty, first, second) {
        (None, first, second) => Ok(Stdio::Host([first, second, descriptors.next()])),
        (Some(Size { rows, columns }), Some(input), Some(output)) => Ok(Stdio::Terminal { input, output, rows, columns }),
        (Some(_), _, _) => Err(Failure::invalid("A terminal needs two descriptors: one to read from, one to write to")),
    }
}

/// Tells the client when a process ends.
fn announce_exit(connection: &Arc<Connection>, pid: i32) -> Result<(), Failure> {
    let client = Arc::downgrade(connection);
    let then = move |status| {
        if let Some(client) = client.upgrade() {
            client.tell(&exited(pid, status));
        }
    };
    let result = connection.server.machine.on_exit(pid, Box::new(then));
    result.map_err(|errno| Failure { code: Code::NotFound, ..refused(&format!("There is no process {pid}"), errno) })
}
