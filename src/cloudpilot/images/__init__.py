"""Images: what sandboxes start from. OCI layouts and archives are read, checked and unpacked into roots that sandboxes show read-only.

- `digests`: blobs are what their names say, or refused
- `layout`: OCI layouts as directories or archives, and what `docker save` writes
- `layers`, `unpack`: layers, taken apart without ever leaving the root
- `owners`: whose files they are inside; on the host they are all ours
- `image`: what an image says about how it is run
- `store`: `Images`, names and roots on this host
"""
