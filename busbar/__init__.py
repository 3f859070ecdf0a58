"""Busbar: a charging station management system built as an event-streaming pipeline on Apache Kafka.

This package is the kernel that the services share. Imports point one way: `services` -> `busbar`.
"""

__version__ = "0.1.0"
