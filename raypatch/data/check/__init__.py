"""What should be known of a dataset before a model is trained on it: findings, repeated images, a sheet to look at."""

from raypatch.data.check.findings import (
    Findings,
    check_file,
    describe_torn_patients,
    find_torn_patients,
    short_findings,
)

__all__ = ["Findings", "check_file", "describe_torn_patients", "find_torn_patients", "short_findings"]
