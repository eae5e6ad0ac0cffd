"""`pilot function`: functions of a service."""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.parse
from typing import TYPE_CHECKING, Any

from cloudpilot.cli import complain, table
from cloudpilot.cli.parser import Parser
from cloudpilot.engine import config
from cloudpilot.errors import InvalidArgumentException

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudpilot.remote import Service

_USAGE = """\
deploy NAME [OPTIONS] PATH        make a function of a directory, an archive or a file, or change it
       pilot function deploy NAME --http [OPTIONS] PATH -- PROGRAM [ARGS…]
       pilot function invoke NAME [EVENT]
       pilot function logs NAME [--follow]
       pilot function list [--json]
       pilot function delete NAME…

CLOUDPILOT_URL and CLOUDPILOT_API_KEY say which service, and who asks."""
FUNCTION_FAILED = 1
"""Status of `invoke` where the function failed."""
_FOLLOW_WAIT = 20


def _parser(verb: str, description: str, usage: str) -> Parser:
    result = Parser(f"function {verb}", description, usage)
    result.add_argument("--url", metavar="URL", help="the service (default: CLOUDPILOT_URL, or this host's)")
    return result


def _service(given: Any) -> Service:
    from cloudpilot.remote import Service

    return Service(given.url)


def _path(name: str, more: str = "", **query: Any) -> str:
    asked = urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})
    return f"/v1/functions/{urllib.parse.quote(name, safe='')}{more}" + (f"?{asked}" if asked else "")


def _deploy(arguments: list[str]) -> int:
    own, command = arguments, []
    if "--" in arguments:
        place = arguments.index("--")
        own, command = arguments[:place], arguments[place + 1 :]
    parser = _parser("deploy", "Make a function, or change it.", "NAME [OPTIONS] [PATH] [-- PROGRAM [ARGS…]]")
    option = parser.add_argument
    option("--handler", metavar="MODULE.NAME", help="what is called (default: `handler` of the one file given)")
    option("--runtime", metavar="NAME", default="python3", help="`python3` (default), `nodejs`, or `provided`, which runs `bootstrap`")
    option("--http", action="store_true", help="the program is a server on $PORT; without one, `functions-framework`")
    option("--target", metavar="NAME", help="function that `functions-framework` serves")
    option("--signature", choices=("http", "event", "cloudevent", "typed"), help="how it is called")
    option("--image", metavar="NAME", help="an image of the service, in place of PATH")
    option("--env", "-e", metavar="K=V", action="append", default=[], help="set a variable; `K` alone copies the host's")
    option("--memory", "-m", metavar="SIZE", default="128m", help="memory of an instance (default: 128m)")
    option("--timeout", metavar="TIME", default="60s", help="what a call may take (default: 60s)")
    option("--concurrency", metavar="N", type=int, default=1, help="requests that a server takes at a time (default: 1)")
    option("--public", action="store_true", help="whoever knows the server's address may call it")
    option("--json", action="store_true", help="print JSON")
    option("name", metavar="NAME")
    option("path", metavar="PATH", nargs="?")
    given = parser.parse_intermixed_args(own)
    body: dict[str, Any] = {
        "name": given.name,
        "contract": "http" if given.http else "events",
        "runtime": given.runtime,
        "env": config.parse_variables(given.env),
        "memory_mb": max(1, config.parse_size(given.memory) >> 20),
        "timeout": max(1, round(config.parse_duration(given.timeout))),
        "concurrency": given.concurrency,
        "public": given.public,
        "handler": given.handler or "",
    }
    for name in ("image", "target", "signature"):
        if getattr(given, name) is not None:
            body[name] = getattr(given, name)
    if command:
        body["command"] = command
    if given.path is not None:
        from cloudpilot.bundle import archive_of

        archive, module = archive_of(given.path)
        body["code"] = base64.b64encode(archive).decode()
        if not given.http and not given.handler and module is not None:
            body["handler"] = f"{module}.handler"
    made = _service(given).request("POST", "/v1/functions", body)
    if given.json:
        table.print_json(made)
    else:
        print(made["url"] or made["name"])
        if made["path"]:
            print(f"also below {made['path']} of the service", file=sys.stderr)
    return 0


def _invoke(arguments: list[str]) -> int:
    parser = _parser("invoke", "Call a function, and print what it answers.", "NAME [OPTIONS] [EVENT]")
    parser.add_argument("--version", metavar="VERSION", help="a version or an alias")
    parser.add_argument("--log", action="store_true", help="print the end of what it wrote on standard error")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("event", metavar="EVENT", nargs="?", default="null", help="in JSON; `-` reads standard input")
    given = parser.parse_intermixed_args(arguments)
    text = sys.stdin.read() if given.event == "-" else given.event
    try:
        json.loads(text)
    except ValueError as error:
        raise InvalidArgumentException(f"The event is not JSON: {error}", "write a text with quotation marks: '\"text\"'") from None
    path = _path(given.name, "/invoke", version=given.version)
    outcome = _service(given).request("POST", path, data=text.encode(), seconds=900)
    if given.log:
        sys.stderr.write(outcome["log"])
    if outcome["error"] is not None:
        result = outcome["result"]
        message = result.get("errorMessage") or result if isinstance(result, dict) else result
        print(f"error: The function failed: {message}", file=sys.stderr)
        for line in result.get("stackTrace") or () if isinstance(result, dict) else ():
            sys.stderr.write(str(line))
        return FUNCTION_FAILED
    print(json.dumps(outcome["result"], ensure_ascii=False))
    return 0


def _logs(arguments: list[str]) -> int:
    parser = _parser("logs", "Print what a function wrote.", "NAME [OPTIONS]")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what it writes from now on")
    parser.add_argument("--limit", "-n", metavar="N", type=int, default=1000, help="newest pieces to begin with (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    parser.add_argument("name", metavar="NAME")
    given = parser.parse_args(arguments)
    service = _service(given)
    found = service.request("GET", _path(given.name, "/log", limit=given.limit))
    while True:
        for entry in found["entries"]:
            sys.stdout.write(json.dumps(entry) + "\n" if given.json else entry["text"])
        sys.stdout.flush()
        if not given.follow:
            return 0
        found = service.request("GET", _path(given.name, "/log", after=found["next"], wait=_FOLLOW_WAIT), seconds=_FOLLOW_WAIT)


def _list(arguments: list[str]) -> int:
    parser = _parser("list", "List functions.", "[--json]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    found = _service(given).request("GET", "/v1/functions")["functions"]
    if given.json:
        table.print_json(found)
        return 0
    rows = [
        (each["name"], each["contract"], each["handler"] or each["image"] or "-", f"{each['memory_mb']} MiB", table.age(each["modified"]))
        for each in found
    ]
    table.print_table(("NAME", "CONTRACT", "RUNS", "MEMORY", "CHANGED"), rows)
    return 0


def _delete(arguments: list[str]) -> int:
    parser = _parser("delete", "Remove functions with all their versions.", "NAME…")
    parser.add_argument("names", metavar="NAME", nargs="+")
    given = parser.parse_args(arguments)
    service = _service(given)
    for name in given.names:
        service.request("DELETE", _path(name))
    return 0


_VERBS: dict[str, Callable[[list[str]], int]] = {"deploy": _deploy, "invoke": _invoke, "logs": _logs, "list": _list, "delete": _delete}


def main(arguments: list[str]) -> int:
    """Runs `pilot function`."""
    verb = arguments[0] if arguments else "--help"
    if verb in ("--help", "-h"):
        print(f"Usage: pilot function {_USAGE}")
        return 0
    if verb not in _VERBS:
        return complain(f"There is no `pilot function {verb}`", f"it is one of {', '.join(_VERBS)}")
    try:
        return _VERBS[verb](arguments[1:])
    except KeyboardInterrupt:
        if verb == "logs":
            os.write(2, b"\n")
            return 0
        raise
