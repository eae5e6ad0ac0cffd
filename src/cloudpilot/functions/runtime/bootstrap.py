"""Runs Python handlers inside a sandbox, for code that does not bring `awslambdaric`. It imports nothing but the standard library."""

import http.client
import importlib
import json
import os
import sys
import time
import traceback

BASE = "/2018-06-01/runtime"


class Context:
    """What a handler is told of its call."""

    def __init__(self, headers):
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        self.client_context = None
        self.identity = None
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self):
        """Milliseconds until the call is given up."""
        return max(0, self._deadline - int(time.time() * 1000))


def described(error):
    """An error as the caller of the function sees it."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return json.dumps({"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": lines[1:-1]})


def main():
    """Loads the handler and serves calls."""
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def ask(method, path, body=None, headers=None):
        connection.request(method, BASE + path, body, headers or {})
        response = connection.getresponse()
        return response.headers, response.read()

    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    try:
        module, _, name = os.environ["_HANDLER"].rpartition(".")
        handler = getattr(importlib.import_module(module.replace("/", ".")), name)
    except BaseException as error:
        kind = "Runtime.ImportModuleError" if isinstance(error, ImportError) else "Runtime.HandlerNotFound"
        text = json.dumps(
            {"errorMessage": f"Unable to load the handler `{os.environ['_HANDLER']}`: {error}", "errorType": kind, "stackTrace": []}
        )
        ask("POST", "/init/error", text, {"Lambda-Runtime-Function-Error-Type": kind})
        sys.exit(1)
    while True:
        headers, event = ask("GET", "/invocation/next")
        path = f"/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}"
        try:
            answer = json.dumps(handler(json.loads(event), Context(headers)), ensure_ascii=False).encode()
        except Exception as error:
            traceback.print_exc()
            sys.stdout.flush()
            ask("POST", path + "/error", described(error), {"Lambda-Runtime-Function-Error-Type": type(error).__name__})
        else:
            sys.stdout.flush()
            ask("POST", path + "/response", answer)


if __name__ == "__main__":
    main()
