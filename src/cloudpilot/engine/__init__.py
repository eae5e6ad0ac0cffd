"""Runs instances on this host: what the command line and the SDK both stand on."""
