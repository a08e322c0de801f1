"""What ends a process of the read side from outside: each is one line that tells the operator what to do."""

from __future__ import annotations


class ProjectionsError(Exception):
    """An outside failure that ends this process; its text is the one-line reason."""


class LogUnusable(ProjectionsError):
    """The log is not the one that was read before: truncated, made anew, or not there."""


class KafkaLost(ProjectionsError):
    """Kafka did not answer for longer than this process waits."""


class AuditFenced(ProjectionsError):
    """Another process publishes the audit now; this one must not."""


class StoreUnusable(ProjectionsError):
    """The database cannot be used: of another version, locked for too long, or unreadable."""
