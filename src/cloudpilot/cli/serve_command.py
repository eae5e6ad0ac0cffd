"""`pilot serve`: turns this host into a service."""

from __future__ import annotations

import os

from cloudpilot.cli.parser import Parser
from cloudpilot.engine import config
from cloudpilot.errors import NotFoundException


def main(arguments: list[str]) -> int:
    """Runs `pilot serve`."""
    parser = Parser("serve", "Serve sandboxes over HTTP, to E2B's clients and others.", "[OPTIONS]")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, metavar="N", help="port to listen on; 0 is any (default: 8200)")
    parser.add_argument("--data", metavar="DIR", help="directory of what it remembers")
    parser.add_argument("--certificate", metavar="FILE", help="TLS certificate chain in PEM form")
    parser.add_argument("--private-key", metavar="FILE", help="its key")
    parser.add_argument("--domain", metavar="NAME", help="name under which ports of sandboxes are reached")
    parser.add_argument(
        "--function-memory", metavar="SIZE", help="memory that instances of functions may use in all (default: the host's, less a reserve)"
    )
    parser.add_argument("--check", action="store_true", help="try what a start needs, and start nothing")
    given = parser.parse_args(arguments)
    try:
        from cloudpilot.service import server
    except ModuleNotFoundError as error:
        hint = "install them: `pip install 'cloudpilot[service]'`"
        raise NotFoundException(f"The service needs packages that are not installed, like `{error.name}`", hint) from None
    from cloudpilot.service.settings import DEFAULT_PORT, Settings, default_data

    settings = Settings(
        host=given.host,
        port=DEFAULT_PORT if given.port is None else given.port,
        data=os.path.abspath(given.data or default_data()),
        certificate=given.certificate,
        private_key=given.private_key,
        domain=given.domain,
        function_memory=None if given.function_memory is None else config.parse_size(given.function_memory),
    )
    return server.check(settings) if given.check else server.serve(settings)
