"""Limits of what a host runs for others."""

from __future__ import annotations

DEFAULT_TIMEOUT = 300
"""Seconds that a sandbox lives where nothing is said, as with E2B."""
LONGEST_LIFE = 24 * 3600
"""Seconds that a sandbox may live in all, as with E2B. Its own supervisor ends it then, whether there is a service or not."""
LARGEST_UPLOAD = 4 << 30
"""Bytes of one upload, which lies on the host's disk until the sandbox has it."""
MOST_PREPARED = 64
"""Sandboxes of one template that wait: a burst of that size is served at once, and a host carries that many of each of a few templates."""
DEFAULT_MEMORY_MB = 1024
"""Memory of a sandbox whose template says nothing."""
