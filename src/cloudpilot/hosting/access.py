"""Who may do what: projects, API keys with roles, and the audit log of every change."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.store import Entry, Store, StoreError, Value

ROLES = ("read-only", "user", "admin")
"""Each may do what those before it may: look; run sandboxes in its project; everything, in all projects."""
DEFAULT_PROJECT = "default"
DEFAULT_QUOTA: dict[str, int | None] = {
    "most_sandboxes": 1000,
    "most_memory_mb": None,
    "most_cpus": None,
    "most_functions": 1000,
}
"""What a project may have at a time where nothing is said: sandboxes (instances of functions are sandboxes, too), the memory and the CPUs
that are promised to them, and functions. None is no limit but the host's."""
_QUOTA_WORDS = {"most_sandboxes": "sandboxes", "most_memory_mb": "MiB of memory", "most_cpus": "CPUs", "most_functions": "functions"}
MOST_AUDIT = 100_000
"""Newest entries of the audit log that are kept: some 30 MB."""
_PRUNE_EVERY = 1000
_KEY_BYTES = 20
_ID = 16
"""Characters of a key's hash by which it is named."""
_AWS_PREFIX = "CP"
_SHOWN = 12
"""First characters of a key by which people tell keys apart."""

log = logging.getLogger("cloudpilot.audit")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        key_id: The key that came with it.
        role: What it may do.
        project: Where it may do it.
    """

    key_id: str
    role: str
    project: str

    def need(self, role: str) -> None:
        """Refuses whoever has less than this role."""
        if ROLES.index(self.role) < ROLES.index(role):
            raise Failure(Kind.FORBIDDEN, f"The role `{self.role}` may not do this", remedy=f"use a key with the role `{role}`")


class Access:
    """Projects, keys and the audit log in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._secret = self._make_secret()
        self._aws: dict[str, tuple[Caller, str]] = {}
        self._noted = 0
        self._prune()

    def _make_secret(self) -> bytes:
        entry = self.store.get("secret")
        if entry is None:
            self.store.transact({"secret": {"hex": secrets.token_hex(32)}}, {"secret": None})
            entry = self.store.get("secret")
        assert entry is not None
        return bytes.fromhex(entry.value["hex"])

    def sandbox_token(self, sandbox_id: str) -> str:
        """What opens one sandbox's own API; derived, so that there is nothing to be stored or lost."""
        return hmac.new(self._secret, b"sandbox:" + sandbox_id.encode(), hashlib.sha256).hexdigest()

    def token(self, purpose: str) -> str:
        """What proves that the service itself has given something out; derived, like the token of a sandbox."""
        return hmac.new(self._secret, b"token:" + purpose.encode(), hashlib.sha256).hexdigest()

    def first_key(self) -> str | None:
        """Makes the first project and its key; none if there is one already."""
        if self.store.count("keys/"):
            return None
        if self.store.get(f"projects/{DEFAULT_PROJECT}") is None:
            self.make_project(DEFAULT_PROJECT, {})
        key, _ = self.make_key(DEFAULT_PROJECT, "admin", "first key")
        return key

    def make_key(self, project: str, role: str, name: str) -> tuple[str, Value]:
        """Makes a key, which is told this once: the store has only its hash."""
        if self.store.get(f"projects/{project}") is None:
            raise Failure(Kind.NOT_FOUND, f"There is no project `{project}`", field="project", remedy="make it first: POST /v1/projects")
        # E2B's client takes keys of this form only.
        key = f"e2b_{os.urandom(_KEY_BYTES).hex()}"
        value = {"project": project, "role": role, "name": name, "shown": key[:_SHOWN], "created": time.time()}
        self.store.transact({f"keys/{_hash(key)}": value})
        return key, {"id": _hash(key)[:_ID], **value}

    def caller(self, key: str | None) -> Caller:
        """Whose key that is."""
        if not key:
            remedy = "send it as `X-API-Key` or as `Authorization: Bearer`"
            raise Failure(Kind.UNAUTHENTICATED, "The request has no API key", remedy=remedy)
        entry = self.store.get(f"keys/{_hash(key)}")
        if entry is None:
            raise Failure(Kind.UNAUTHENTICATED, "The API key is not known here", remedy="an admin makes keys: POST /v1/keys")
        return Caller(_hash(key)[:_ID], entry.value["role"], entry.value["project"])

    def aws_credentials(self, access_key_id: str) -> tuple[Caller, str] | None:
        """Whose access key of AWS's kind that is, and its secret. Every key has one, derived, so that nothing is stored."""
        known = self._aws.get(access_key_id)
        if known is not None:
            return known
        key_id = access_key_id.removeprefix(_AWS_PREFIX).lower()
        if not access_key_id.startswith(_AWS_PREFIX) or len(key_id) != _ID:
            return None
        found = self.store.range(f"keys/{key_id}", limit=1)
        if not found:
            return None
        # Every request asks for it, and a key does not change until it is removed. Only keys that there are get here.
        result = self._aws[access_key_id] = Caller(key_id, found[0].value["role"], found[0].value["project"]), self.aws_pair(key_id)[1]
        return result

    def aws_pair(self, key_id: str) -> tuple[str, str]:
        """A key's access key id and secret access key."""
        digest = hmac.new(self._secret, b"aws:" + key_id.encode(), hashlib.sha256).hexdigest()
        return _AWS_PREFIX + key_id.upper(), digest[:40]

    def keys(self) -> list[dict[str, Any]]:
        """All keys, without what would open anything."""
        return [{"id": entry.key.removeprefix("keys/")[:_ID], **entry.value} for entry in self.store.range("keys/")]

    def remove_key(self, key_id: str) -> None:
        """Makes a key worthless."""
        found = [entry for entry in self.store.range("keys/") if entry.key.removeprefix("keys/")[:_ID] == key_id]
        if not found:
            raise Failure(Kind.NOT_FOUND, f"There is no key `{key_id}`", remedy="GET /v1/keys lists them")
        admins = [entry for entry in self.store.range("keys/") if entry.value["role"] == "admin"]
        if [entry.key for entry in admins] == [found[0].key]:
            raise Failure(Kind.CONFLICT, "This is the last key of an admin", remedy="make another one first")
        self.store.transact({found[0].key: None})
        self._aws.clear()

    def make_project(self, name: str, quota: Mapping[str, int | None]) -> Value:
        """Makes a project."""
        value = {"name": name, **DEFAULT_QUOTA, **quota, "created": time.time()}
        if self.store.get(f"projects/{name}") is not None:
            raise Failure(Kind.EXISTS, f"There is a project `{name}` already", field="name", remedy="choose another name")
        self.store.transact({f"projects/{name}": value}, {f"projects/{name}": None})
        return value

    def change_project(self, name: str, quota: Mapping[str, int | None]) -> Value:
        """Changes a project's quota. What runs already goes on."""
        value = {**self.project(name), **quota}
        self.store.transact({f"projects/{name}": value})
        return value

    def project(self, name: str) -> Value:
        """One project."""
        entry = self.store.get(f"projects/{name}")
        if entry is None:
            raise Failure(Kind.NOT_FOUND, f"There is no project `{name}`", remedy="GET /v1/projects lists them")
        return {**DEFAULT_QUOTA, **entry.value}

    def projects(self) -> list[Value]:
        """All projects."""
        return [{**DEFAULT_QUOTA, **entry.value} for entry in self.store.range("projects/")]

    def admit(self, project: str, wanted: Mapping[str, float]) -> None:
        """Refuses what would be more than a project may have.

        Args:
            project: Whose quota it is.
            wanted: What there would be then, by the quota's names.

        Raises:
            Failure: A limit, which it names.
        """
        quota = self.project(project)
        for name, amount in wanted.items():
            limit = quota[name]
            if limit is not None and amount > limit:
                what = _QUOTA_WORDS[name]
                remedy = f"end some, or let an admin raise `{name}`: PATCH /v1/projects/{project}"
                raise Failure(Kind.LIMIT, f"The project `{project}` may have {limit} {what} at a time", remedy=remedy)

    def note(self, caller: Caller | None, action: str, target: str, **details: Any) -> None:
        """Writes into the audit log who did what."""
        now = time.time()
        who = {"key": caller.key_id, "project": caller.project} if caller else {"key": "service", "project": None}
        value = {"time": now, **who, "action": action, "target": target, "details": details}
        try:
            self.store.transact({f"audit/{int(now * 1e6):020d}-{secrets.token_hex(3)}": value})
            self._noted += 1
            if self._noted % _PRUNE_EVERY == 0:
                self._prune()
        except StoreError as error:
            # What was done is done, and cannot be answered as refused; the service's log keeps what the store could not.
            log.warning("audit", extra={**value, "error": str(error)})

    def _prune(self) -> None:
        surplus = self.store.count("audit/") - MOST_AUDIT
        if surplus > 0:
            self.store.transact({entry.key: None for entry in self.store.range("audit/", limit=surplus)})

    def audit(self, before: str | None, limit: int) -> list[Entry]:
        """The newest entries of the audit log, the newest first."""
        return self.store.range("audit/", after=None if before is None else f"audit/{before}", limit=limit, newest_first=True)


def _hash(key: str) -> str:
    # Keys are random and long: a slow hash would protect nothing more.
    return hashlib.sha256(key.encode()).hexdigest()
