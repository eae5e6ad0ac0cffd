//! Requests about files. Those that may take long run in threads of their own, so that a client can go on meanwhile.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::Connection;
use super::requests::{Who, decode, refused, user};
use super::{MOST_TRANSFERS, Permit, run};
use crate::failure::{Code, Failure};

/// Deepest listing.
const DEEPEST_LISTING: u32 = 64;
/// Permission bits of a file made by `write_file` that says nothing about them.
const DEFAULT_MODE: u32 = 0o644;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnePath {
    path: String,
    user: Option<Who>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteFile {
    path: String,
    user: Option<Who>,
    mode: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListDirectory {
    path: String,
    user: Option<Who>,
    depth: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    from: String,
    to: String,
    user: Option<Who>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    path: String,
    user: Option<Who>,
    #[serde(default)]
    recursive: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteLayer {
    /// Absolute paths.
    leave_out: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unwatch {
    watch: u64,
}

type Answer = Result<Value, Failure>;

/// Answers a request about files, later if need be.
pub fn serve(connection: &Arc<Connection>, id: &Value, method: &str, params: Value, descriptors: Vec<OwnedFd>) {
    let work: fn(&Arc<Connection>, Value, &mut Vec<OwnedFd>) -> Answer = match method {
        "read_file" => read_file,
        "write_file" => write_file,
        "list_dir" => list_directory,
        "stat" => stat,
        "make_dir" => make_directory,
        "remove" => remove,
        "rename" => rename,
        "watch" => watch,
        "unwatch" => unwatch,
        "write_layer" => write_layer,
        _ => {
            let failure = Failure::new(Code::NotFound, format!("There is no method `{method}`"));
            return connection.reply(id, Err(failure), None);
        }
    };
    let Some(permit) = Permit::take(&connection.server, |server| &server.transfers, MOST_TRANSFERS) else {
        let failure =
            Failure::new(Code::Limit, format!("{MOST_TRANSFERS} requests about files are under way already")).hint("try again later");
        return connection.reply(id, Err(failure), None);
    };
    let (client, name, mut descriptors) = (Arc::clone(connection), id.clone(), descriptors);
    let started = run("files", move || {
        let result = work(&client, params, &mut descriptors);
        client.reply(&name, result, descriptors.pop());
        drop(permit);
    });
    if let Err(failure) = started {
        connection.reply(id, Err(failure), None);
    }
}

fn absolute(path: &str) -> Result<&[u8], Failure> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path.as_bytes());
    }
    Err(Failure::invalid(format!("`{path}` is not an absolute path")))
}

fn descriptor(descriptors: &mut Vec<OwnedFd>) -> Result<OwnedFd, Failure> {
    descriptors.pop().ok_or_else(|| Failure::invalid("The request needs a descriptor for the contents"))
}

fn cannot(what: &'static str, path: &str) -> impl FnOnce(Errno) -> Failure {
    let what = format!("Cannot {what} `{path}`");
    move |errno| refused(&what, errno)
}

fn read_file(connection: &Arc<Connection>, params: Value, descriptors: &mut Vec<OwnedFd>) -> Answer {
    let OnePath { path, user: who } = decode(params)?;
    let files = connection.server.machine.files();
    let size = files.read_file(&user(who), absolute(&path)?, descriptor(descriptors)?).map_err(cannot("read", &path))?;
    Ok(json!({"size": size}))
}

fn write_file(connection: &Arc<Connection>, params: Value, descriptors: &mut Vec<OwnedFd>) -> Answer {
    let WriteFile { path, user: who, mode } = decode(params)?;
    let files = connection.server.machine.files();
    let mode = mode.unwrap_or(DEFAULT_MODE) & 0o7777;
    let size = files.write_file(&user(who), absolute(&path)?, mode, descriptor(descriptors)?).map_err(cannot("write", &path))?;
    Ok(json!({"size": size}))
}

fn list_directory(connection: &Arc<Connection>, params: Value, _: &mut Vec<OwnedFd>) -> Answer {
    let ListDirectory { path, user: who, depth } = decode(params)?;
    let depth = depth.unwrap_or(1).clamp(1, DEEPEST_LISTING);
    let files = connection.server.machine.files();
    let entries = files.list_directory(&user(who), absolute(&path)?, depth).map_err(cannot("list", &path))?;
    Ok(json!({"entries": entries}))
}

fn stat(connection: &Arc<Connection>, params: Value, _: &mut Vec<OwnedFd>) -> Answer {
    let OnePath { path, user: who } = decode(params)?;
    let entry = connection.server.machine.files().stat(&user(who), absolute(&path)?).map_err(cannot("look at", &path))?;
    Ok(json!(entry))
}

fn make_directory(connection: &Arc<Connection>, params: Value, _: &mut Vec<OwnedFd>) -> Answer {
    let OnePath { path, user: who } = decode(params)?;
    let made = connection.server.machine.files().make_directory(&user(who), absolute(&path)?);
    Ok(json!({"created": made.map_err(cannot("make the directory", &path))?}))
}

fn remove(connection: &Arc<Connection>, params: Value, _: &mut Vec<OwnedFd>) -> Answer {
    let OnePath { path, user: who } = decode(params)?;
    connection.server.machine.files().remove(&user(who), absolute(&path)?).map_err(cannot("remove", &path))?;
    Ok(json!({}))
}

fn rename(connection: &Arc<Connection>, params: Value, _: &mut Vec<OwnedFd>) -> Answer {
    let Rename { from, to, user: who } = decode(params)?;
    let files = connection.server.machine.files();
    files.rename(&user(who), absolute(&from)?, absolute(&to)?).map_err(cannot("rename", &from))?;
    Ok(json!({}))
}

fn watch(connection: &Arc<Connection>, params: Value, _: &mut Vec<OwnedFd>) -> Answer {
    let Watch { path, user: who, recursive } = decode(params)?;
    let number = connection.next_watch()?;
    let client = Arc::downgrade(connection);
    let then = move |name: &str, kind: &'static str| match client.upgrade() {
        Some(client) => {
            client.tell(&json!({"event": "file", "watch": number, "name": name, "type": kind}));
            true
        }
        None => false,
    };
    let files = connection.server.machine.files();
    let watch = files.watch(&user(who), absolute(&path)?, recursive, Box::new(then)).map_err(cannot("watch", &path))?;
    connection.keep_watch(number, watch);
    Ok(json!({"watch": number}))
}

fn unwatch(connection: &Arc<Connection>, params: Value, _: &mut Vec<OwnedFd>) -> Answer {
    let Unwatch { watch } = decode(params)?;
    match connection.drop_watch(watch) {
        true => Ok(json!({})),
        false => Err(Failure::new(Code::NotFound, format!("There is no watch {watch}"))),
    }
}

fn write_layer(connection: &Arc<Connection>, params: Value, descriptors: &mut Vec<OwnedFd>) -> Answer {
    let WriteLayer { leave_out } = decode(params)?;
    let left_out = leave_out.iter().map(|path| Ok(absolute(path)?[1..].to_vec())).collect::<Result<Vec<_>, Failure>>()?;
    let files = connection.server.machine.files();
    let size = files.write_layer(&left_out, descriptor(descriptors)?).map_err(cannot("write the changes of", "/"))?;
    Ok(json!({"size": size}))
}
