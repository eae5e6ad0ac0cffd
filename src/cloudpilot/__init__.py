"""Cloudpilot runs untrusted Linux programs behind a user-space kernel of its own.

    >>> from cloudpilot import Sandbox
    >>> with Sandbox.create() as sandbox:
    ...     sandbox.commands.run("python3 -c 'print(6*7)'").stdout
    '42\\n'

The names are E2B's, so that code moves over where the meaning is the same. Names are loaded when they are first used.
"""

__version__ = "0.1.0"
