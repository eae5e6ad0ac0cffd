"""Runs Python handlers inside a sandbox, for code that does not bring `awslambdaric`. It imports nothing but the standard library.

And of that as little as possible: every import is a part of every cold start. So the socket is the one beneath the module `socket`, and
`traceback` waits for something to go wrong.
"""

import _socket
import json
import os
import sys
import time

BASE = "/2018-06-01/runtime"
CHUNK = 256 << 10


class Context:
    """What a handler is told of its call."""

    def __init__(self, headers):
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.invoked_function_arn = headers["lambda-runtime-invoked-function-arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        client = headers.get("lambda-runtime-client-context")
        self.client_context = json.loads(client) if client else None
        self.identity = None
        self._deadline = int(headers["lambda-runtime-deadline-ms"])

    def get_remaining_time_in_millis(self):
        """Milliseconds until the call is given up."""
        return max(0, self._deadline - int(time.time() * 1000))


class Interface:
    """A connection to the runtime interface. Both sides are known, so it speaks the little of HTTP that is needed, and asks ahead."""

    def __init__(self):
        host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
        self._socket = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        self._socket.connect((host, int(port)))
        self._socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._host = f"Host: {host}:{port}\r\n"
        self._read = b""
        self._next = f"GET {BASE}/invocation/next HTTP/1.1\r\n{self._host}\r\n".encode()

    def _answer(self):
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            self._more()
        headers = {}
        for line in self._read[:end].decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        whole = end + 4 + int(headers["content-length"])
        while len(self._read) < whole:
            self._more(whole - len(self._read))
        body, self._read = self._read[end + 4 : whole], self._read[whole:]
        return headers, body

    def _more(self, wanted=0):
        pieces = []
        while True:
            piece = self._socket.recv(CHUNK)
            if not piece:
                # Nobody wants to know any more.
                os._exit(0)
            pieces.append(piece)
            wanted -= len(piece)
            if wanted <= 0:
                break
        self._read += b"".join(pieces)

    def _post(self, path, body, kind=None):
        head = f"POST {BASE}{path} HTTP/1.1\r\n{self._host}Content-Length: {len(body)}\r\n"
        if kind is not None:
            head += f"Lambda-Runtime-Function-Error-Type: {kind}\r\n"
        return f"{head}\r\n".encode() + body

    def first(self):
        """The first call."""
        self._socket.sendall(self._next)
        return self._answer()

    def following(self, path, body, kind=None):
        """Tells what became of a call; answers the next one, which is asked for in the same breath."""
        self._socket.sendall(self._post(path, body, kind) + self._next)
        self._answer()
        return self._answer()

    def failed(self, body, kind):
        """Tells that there will be no calls."""
        self._socket.sendall(self._post("/init/error", body, kind))
        self._answer()


def described(error):
    """An error as the caller of the function sees it; the log gets it, too."""
    import traceback

    traceback.print_exception(error)
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return json.dumps({"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": lines[1:-1]}).encode()


def load(interface):
    """The handler."""
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    name = os.environ["_HANDLER"]
    try:
        module, _, function = name.rpartition(".")
        module = module.replace("/", ".")
        __import__(module)
        return getattr(sys.modules[module], function)
    except BaseException as error:
        described(error)
        kinds = ((ImportError, "Runtime.ImportModuleError"), (SyntaxError, "Runtime.UserCodeSyntaxError"))
        kind = next((kind for cause, kind in kinds if isinstance(error, cause)), "Runtime.HandlerNotFound")
        text = {"errorMessage": f"Unable to load the handler `{name}`: {error}", "errorType": kind, "stackTrace": []}
        interface.failed(json.dumps(text).encode(), kind)
        sys.exit(1)


def main():
    """Loads the handler and serves calls."""
    interface = Interface()
    handler = load(interface)
    headers, event = interface.first()
    while True:
        path = f"/invocation/{headers['lambda-runtime-aws-request-id']}"
        kind = None
        try:
            answer = json.dumps(handler(json.loads(event), Context(headers)), ensure_ascii=False).encode()
            path += "/response"
        except Exception as error:
            answer, kind = described(error), type(error).__name__
            path += "/error"
        sys.stdout.flush()
        headers, event = interface.following(path, answer, kind)


if __name__ == "__main__":
    main()
