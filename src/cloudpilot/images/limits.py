"""How much an image may be. Whoever made it may mean harm; a disk filled or a service out of memory is what these are against."""

from __future__ import annotations

LARGEST_DOCUMENT = 4 << 20
"""Bytes of an index, a manifest or a configuration: what registries take at most."""
DEEPEST_INDEX = 8
"""Indexes within indexes. Two is what tools write; each level is a file that is read."""
MOST_LAYERS = 256
"""Layers of an image: twice what Docker can make."""
LARGEST_ROOT = 64 << 30
"""Bytes of all layers unpacked. A kilobyte of zstd can claim any number, so this is counted while it is unpacked, holes included."""
MOST_ENTRIES = 4_000_000
"""Files, directories and links in all layers: inodes are as finite as bytes, and each costs an entry of the archive only."""
LARGEST_HEADER = 1 << 20
"""Bytes of one extended header of an archive, which is read into memory as a whole. Names end at 4 KiB, attributes at 64 KiB."""
LONGEST_PATH = 4096
"""Bytes of a name in an archive, `PATH_MAX`."""
DEEPEST_PATH = 512
"""Directories above a file. Deeper trees cannot be named by programs, and recursion over them ends somewhere."""
LARGEST_PASSWD = 1 << 20
"""Bytes of an image's lists of users and groups that are looked through."""
MOST_ARCHIVE_MEMBERS = 10_000
"""Members of an archive that holds a layout: a few for each layer."""
