"""E2B's APIs, as its unmodified client speaks them: `control` starts and ends sandboxes, `envd` is what the client finds inside one."""

ENVD_VERSION = "0.6.3"
"""The version of E2B's agent whose behaviour `envd` has; clients ask for features by it."""
