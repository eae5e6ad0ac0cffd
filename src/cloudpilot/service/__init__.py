"""The HTTP service: sandboxes over the APIs that people already use, and over our own. Needs the package's extra `service`."""
